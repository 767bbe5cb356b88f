"""The result of a cell: a small JSON file, and beside it what each sample contributed.

NAME.json           scores, parameters, time, memory, gate usage, versions; for people and git
NAME.safetensors    statistics of every scored sample, for intervals and paired differences

The second holds, for each test set after each stage (and for whole test sets after the last), the
numbers of which the metric is a function of the sums, and a number for the thing that each sample
shows. With both the report needs neither the runs nor the data sets.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pathweave.data.manifest import Manifest
from pathweave.data.messages import Sample
from pathweave.errors import RunError
from pathweave.evaluate.metrics import METRICS
from pathweave.evaluate.results import Results
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import sha256_bytes, sha256_file, write_json
from pathweave.storage.tensors import write_tensors

WHOLE = "whole"


class CellResult(BaseModel, extra="forbid"):
    """What is kept of a cell.

    Args:
        format: Version of the file.
        method: Name of the method in the grid.
        order: Name of the order.
        seed: Seed.
        recipe_hash: Hash of all that decided the result, of ``grid.recipe_hash``.
        results: The results of the run.
        gate_usage: Mean weight of each expert, by path.
        seconds: Wall-clock time of the cell over all sessions, scoring included; without the
            first stage where that was shared.
        shared_seconds: Wall-clock time of the shared first stage, 0 where it was not shared.
        peak_memory_bytes: Largest resident memory of any of its processes.
        versions: Versions of what computed.
        ids: Hash of the ids of the scored samples, by key of the statistics.
        samples: SHA-256 of the file beside it.
    """

    format: Literal[1] = 1
    method: str
    order: str
    seed: int
    recipe_hash: str
    results: Results
    gate_usage: dict[str, dict[str, float]]
    seconds: float
    shared_seconds: float = 0.0
    peak_memory_bytes: int
    versions: dict[str, str]
    ids: dict[str, str]
    samples: str


def stage_key(after: str, modality: str, dataset: str) -> str:
    """Return the key of the statistics of a test set after a stage."""
    return f"after-{after}|{modality}|{dataset}"


def whole_key(modality: str, dataset: str) -> str:
    """Return the key of the statistics of a whole test set after the last stage."""
    return f"{WHOLE}|{modality}|{dataset}"


def objects_key(key: str) -> str:
    """Return the key of the things that samples show, for the key of their statistics."""
    kind, modality, dataset = key.split("|", 2)
    return f"objects|{WHOLE if kind == WHOLE else 'stages'}|{modality}|{dataset}"


def collect(recipe: Recipe, run: RunDirectory) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the statistics of every scored sample of a run, and hashes of the ids.

    Raises:
        RunError: If the answers on disk are damaged or are not to the samples of the manifests.
        ManifestError: If a manifest cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    ids: dict[str, str] = {}
    for position, name in enumerate(recipe.curriculum):
        for dataset, test_set in recipe.modalities[name].test.items():
            samples = {s.id: s for s in Manifest(Path(test_set.manifest), on_error="collect")}
            files = {
                stage_key(after, name, dataset): run.stage_predictions(after, name, dataset)
                for after in recipe.curriculum[position:]
            }
            files[whole_key(name, dataset)] = run.whole_predictions(name, dataset)
            for key, file in files.items():
                if file.is_file():
                    answered = _answers(file, samples)
                    tensors[key] = _measure(answered, test_set.metric)
                    tensors[objects_key(key)] = _objects(sample for sample, _ in answered)
                    listed = "\n".join(sample.id for sample, _ in answered)
                    ids[key] = sha256_bytes(listed.encode())
    return tensors, ids


def _answers(file: Path, samples: dict[str, Sample]) -> list[tuple[Sample, str]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [(samples[row["id"]], row["answer"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} must hold answers to samples of the recipe's manifest, got {error!r}; remove "
            "scores.json beside predictions/ to score the run again"
        ) from error


def _measure(
    answered: list[tuple[Sample, str]], metric: str
) -> Float[Tensor, "samples statistics"]:
    references = [list(s.references) or [s.answer] for s, _ in answered]
    choices = [list(s.choices) for s, _ in answered]
    statistics = METRICS[metric].measure([answer for _, answer in answered], references, choices)
    return torch.from_numpy(np.ascontiguousarray(statistics)).float()


def _objects(samples: Iterable[Sample]) -> Int[Tensor, " samples"]:
    """Return a number for the thing each sample shows; one without is a thing of its own."""
    named = [f"object {s.object}" if s.object else f"sample {s.id}" for s in samples]
    # Numbers from a hash are the same in every run and every test set of a thing.
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in named]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def samples_file(result: Path) -> Path:
    """Return the file of the statistics beside that of a result."""
    return result.with_suffix(".safetensors")


def save_cell(cell: CellResult, tensors: dict[str, Tensor], file: Path) -> None:
    """Write a result, the statistics first, so that a result is never without them.

    Args:
        cell: The result; its ``samples`` is filled in.
        tensors: The statistics.
        file: The JSON file.

    Raises:
        DiskError: If the directory cannot be written.
    """
    write_tensors(samples_file(file), tensors)
    kept = cell.model_copy(update={"samples": sha256_file(samples_file(file))})
    write_json(file, kept.model_dump(exclude_none=True))


def load_cell(file: Path) -> CellResult:
    """Read a result that ``save_cell`` wrote.

    Raises:
        RunError: If the file does not hold one.
    """
    try:
        return CellResult.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(
            f"{file} must hold the result of a cell, got {' '.join(str(error).split())[:120]}; "
            "remove it and run the grid again (a finished run is not trained again)"
        ) from error


def load_samples(cell: CellResult, file: Path) -> dict[str, Tensor]:
    """Return the statistics that belong to a result.

    Args:
        cell: The result.
        file: Its JSON file.

    Raises:
        RunError: If they are missing, damaged, or of another result.
    """
    beside = samples_file(file)
    try:
        found = sha256_file(beside)
        tensors = load_file(beside) if found == cell.samples else None
    except (OSError, SafetensorError) as error:
        found, tensors = getattr(error, "strerror", None) or str(error), None
    if tensors is None:
        raise RunError(
            f"{beside} must be the file that was written with {file.name} (sha256 "
            f"{cell.samples[:12]}), got {found[:40]}; copy both again, or remove {file.name} and "
            "run the grid again (a finished run is not trained again)"
        )
    return tensors
