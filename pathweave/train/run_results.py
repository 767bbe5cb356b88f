"""Maker of the results of a run: scores, trained parameters, sizes, machine."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pathweave.errors import PathWeaveError
from pathweave.evaluate.gates import recorded_gate_usage
from pathweave.evaluate.results import DatasetInfo, Environment, Results, StageResults
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.schema import Recipe
from pathweave.runs.path_directory import DESCRIPTION, PROOF, describe_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.train.log import events
from pathweave.train.scoring import Scoring


def make_results(recipe: Recipe, run: RunDirectory, model: PathWeave, scoring: Scoring) -> Results:
    """Return the results of a run as far as it has come."""
    finished = run.finished(recipe)
    stages = [_stage(run, model, name) for name in finished]
    told = [*events(run.log.read_bytes() if run.log.exists() else b"")]
    # A step that was taken again after a kill counts once.
    steps = {(e["stage"], e["step"]): e.get("padding", 0.0) for e in told if e["event"] == "step"}
    return Results(
        recipe=recipe.name,
        method=recipe.method.name,
        curriculum=list(recipe.curriculum),
        datasets={name: _datasets(recipe, scoring, name) for name in recipe.curriculum},
        scores=scoring.matrix.as_dict(),
        stages=stages,
        gate_usage=recorded_gate_usage(model, run, finished) or None,
        environment=Environment(
            python=platform.python_version(),
            torch=torch.__version__,
            num_cpus=len(os.sched_getaffinity(0))
            if sys.platform == "linux"
            else os.cpu_count() or 1,
            dtype=str(model.llm.dtype).removeprefix("torch."),
            peak_memory_bytes=max(peak_memory(), _earlier_peak(run)),
            seconds={
                "train": round(sum((stage.seconds or 0.0 for stage in stages), 0.0), 1),
                "score": _seconds(told, "score"),
                "encode": _seconds(told, "encoded"),
            },
            padding=round(sum(steps.values()) / len(steps), 4) if steps else None,
        ),
    )


def _seconds(told: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the seconds that all events of a name took."""
    spent = (each.get("seconds", 0.0) for each in told if each["event"] == name)
    return round(sum(spent, 0.0), 1)


def _datasets(recipe: Recipe, scoring: Scoring, name: str) -> list[DatasetInfo]:
    fields = {"num_samples": "subset", "whole": "score", "num_whole": "num_samples"}
    for field in ("majority", "text_only", "tokenizer", "low", "high", "num_objects", "num_total"):
        fields[field] = field
    made = []
    for dataset, test_set in recipe.modalities[name].test.items():
        known: dict[str, Any] = scoring.sets.get(f"{name}/{dataset}", {})
        told = {f: known.get(stored) for f, stored in fields.items()}
        made.append(DatasetInfo(name=dataset, metric=test_set.metric, probe=test_set.probe, **told))
    return made


def _stage(run: RunDirectory, model: PathWeave, name: str) -> StageResults:
    description = describe_path(run.path(name))
    counts = description["parameters"]
    trained = description["trained_parameters"]
    parts = {kind: counts[kind] for kind in ("adapters", "in_adapters", "gates")}
    files = [f for f in run.path(name).iterdir() if f.name not in (PROOF, DESCRIPTION)]
    return StageResults(
        modality=name,
        **parts,
        other=trained - sum(parts.values()),
        # Full tuning trains what the path needs besides adapters, too.
        full_tuning=model.base.num_tunable
        + sum(counts.get(kind, 0) for kind in ("queries", "input", "patches")),
        medium_use=description.get("medium_use"),
        seconds=description["seconds"],
        num_bytes=sum(f.stat().st_size for f in files),
    )


def _earlier_peak(run: RunDirectory) -> int:
    """Return the largest memory of the sessions that ended with results, in bytes."""
    try:
        environment = Results.load(run.results).environment
    except PathWeaveError:
        return 0  # none, or damaged: they are written anew
    return environment.peak_memory_bytes if environment is not None else 0


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes; 0 is unknown."""
    if sys.platform == "win32":
        return 0
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
