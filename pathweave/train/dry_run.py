"""Dry run: what ``evolve`` would do and what is missing; nothing is loaded or fetched.

Everything is looked at before anything is said, so that all problems are told at once.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathweave.bases.llm import load_tokenizer
from pathweave.bases.pretrained import PICTURE_PATH
from pathweave.data.examples import common_width
from pathweave.encoders import hub_id
from pathweave.errors import PathWeaveError, RecipeError
from pathweave.estimate.encoders import features_of
from pathweave.estimate.shapes import known_sizes
from pathweave.methods import METHODS, method_of, stages_of
from pathweave.methods.path import WHOLE_CONNECTOR
from pathweave.model.pathweave import context_of
from pathweave.recipe.schema import DataSet, Modality, Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import cache_home
from pathweave.train.curriculum import lacking_data
from pathweave.train.manifest_reports import ManifestReport, Manifests, Reading
from pathweave.train.presence import (
    Presence,
    check_weights,
    is_published_base,
    llm_files,
)


@dataclass(frozen=True)
class TrainPlan:
    """A data set to learn from.

    Attributes:
        name: Its name in the recipe.
        data: What is in it.
        share: Share of the stage's samples that are drawn from it, in [0, 1].
        rounds: How often the stage sees each of its samples, on average.
    """

    name: str
    data: ManifestReport
    share: float
    rounds: float


@dataclass(frozen=True)
class TestPlan:
    """A data set to be scored on.

    Attributes:
        name: Its name in the recipe.
        data: What is in it.
        metric: How it is scored.
        scored: Samples scored after each stage.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    name: str
    data: ManifestReport
    metric: str
    scored: int


@dataclass(frozen=True)
class StagePlan:
    """A stage.

    Attributes:
        name: Modality.
        state: ``to learn``, ``learnt`` (its path is in the run) or ``in the base``.
        trains: Parts of the model that it trains.
        predecessors: Paths that it builds on.
        steps: Optimiser steps.
        batch_size: Samples of a step, over all processes.
        train: What it learns from.
        test: What is scored after it and after every later stage.
        medium_bytes: Features of one of its media on disk; None where shapes do not tell.
        feature_bytes: Features of all its media.
    """

    name: str
    state: str
    trains: tuple[str, ...]
    predecessors: tuple[str, ...]
    steps: int
    batch_size: int
    train: tuple[TrainPlan, ...]
    test: tuple[TestPlan, ...]
    medium_bytes: int | None
    feature_bytes: int


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        recipe: Its name.
        out: Its directory.
        weights: Pretrained parts.
        stages: What happens, in order.
        answers: Samples scored over all stages, repetitions counted.
        cache: Where features are kept.
        cache_bytes: What they take there at most.
        free_bytes: What is free there.
        problems: Everything that would stop the run.
    """

    recipe: str
    out: str
    weights: tuple[Presence, ...]
    stages: tuple[StagePlan, ...]
    answers: int
    cache: str
    cache_bytes: int
    free_bytes: int
    problems: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)


def make_plan(recipe: Recipe, out: Path) -> Plan:
    """Look at everything that a run of a recipe needs.

    Every manifest is read whole, and the first medium of each is decoded. Whether features are in
    the cache already is not known, as that takes the encoder's weights.

    Args:
        recipe: The run.
        out: Its directory, which need not exist.
    """
    weights = check_weights(recipe)
    problems = [f"{found.part}: {found.problem}" for found in weights if found.problem]
    try:
        RunDirectory(out).check(recipe)
    except PathWeaveError as error:
        problems.append(str(error))
    manifests = Manifests(recipe, _reading(recipe))
    problems += _width_problems(recipe)
    finished = RunDirectory(out).finished(recipe)
    stages = [_stage(recipe, name, finished, manifests) for name in recipe.curriculum]
    problems += manifests.problems
    learnt = [stage.name for stage in stages if stage.state == "to learn"]
    todo = [stage.name for stage in stages if stage.state != "learnt"]
    problems += lacking_data(recipe, learnt, todo)
    cache = cache_home() / "features"
    needed = sum(stage.feature_bytes for stage in stages)
    free = shutil.disk_usage(_existing(cache)).free
    if needed > free:
        problems.append(
            f"{cache} must have {needed / 1e9:,.1f} GB free for features (less what is there "
            f"already), got {free / 1e9:,.1f} GB; free some, or set PATHWEAVE_HOME to another disk"
        )
    return Plan(
        recipe=recipe.name,
        out=str(out),
        weights=tuple(weights),
        stages=tuple(stages),
        answers=_answers(recipe, stages),
        cache=str(cache),
        cache_bytes=needed,
        free_bytes=free,
        problems=tuple(dict.fromkeys(problems)),
    )


def _width_problems(recipe: Recipe) -> list[str]:
    """Return which paths would read features of several widths."""
    found = []
    for name in recipe.curriculum:
        widths: dict[str, int] = {}
        for other in recipe.modalities[name].reads:
            # What is wrong with a modality by itself is told elsewhere.
            with suppress(PathWeaveError):
                widths[other] = features_of(recipe.modalities[other]).width
        try:
            common_width(name, widths)
        except RecipeError as error:
            found.append(str(error))
    return found


def _stage(recipe: Recipe, name: str, finished: list[str], manifests: Manifests) -> StagePlan:
    modality, training = recipe.modalities[name], recipe.training_of(name)
    state = _state(recipe, name, finished)
    drawn = training.steps * training.batch_size
    weights = sum(data.weight for data in modality.train.values())
    train = []
    for key, data in modality.train.items():
        report, share = manifests.report(data), data.weight / weights
        rounds = share * drawn / report.samples if report.samples else 0.0
        train.append(TrainPlan(key, report, round(share, 4), round(rounds, 2)))
    test = [
        TestPlan(key, report, data.metric, min(report.samples, recipe.evaluation.subset or 1 << 62))
        for key, data in modality.test.items()
        for report in [manifests.report(data)]
    ]
    sizes = [_medium_bytes(recipe.modalities[other]) for other in recipe.read_by(name)]
    known = [size for size in sizes if size is not None]
    # Of several modalities the largest counts.
    medium_bytes = max(known) if len(known) == len(sizes) else None
    return StagePlan(
        name=name,
        state=state,
        trains=_trains(recipe, name) if state == "to learn" else (),
        predecessors=_predecessors(recipe, name),
        steps=training.steps,
        batch_size=training.batch_size,
        train=tuple(train),
        test=tuple(test),
        medium_bytes=medium_bytes,
        feature_bytes=(medium_bytes or 0) * _num_media(modality, manifests),
    )


def _state(recipe: Recipe, name: str, finished: list[str]) -> str:
    if name in finished:
        return "learnt"
    trains_base = recipe.training_of(name).connector
    is_ready = name == PICTURE_PATH and is_published_base(recipe.base) and not trains_base
    return "in the base" if is_ready else "to learn"


def _predecessors(recipe: Recipe, name: str) -> tuple[str, ...]:
    """Return the paths whose adapters a stage builds on."""

    def has_adapters(stage: str) -> bool:
        return _state(recipe, stage, []) == "to learn" and not recipe.training_of(stage).connector

    if method_of(recipe, name) is not METHODS["pathweave"] or not has_adapters(name):
        return ()
    declared = recipe.predecessors_of(name)
    earlier = recipe.curriculum[: recipe.curriculum.index(name)]
    return tuple(filter(has_adapters, earlier)) if declared is None else declared


def _trains(recipe: Recipe, name: str) -> tuple[str, ...]:
    parts = ["queries", "input norm and projection"]
    if recipe.training_of(name).connector:
        return (*parts, *WHOLE_CONNECTOR)
    if trains := method_of(recipe, name).trains:
        return (*parts, *trains)
    method, earlier = recipe.method, _predecessors(recipe, name)
    parts.append(f"adapters of rank {method.rank}")
    if earlier and method.in_adapter is not None:
        parts.append(f"in-adapters for {', '.join(earlier)}")
    if earlier and method.gate is not None:
        parts.append("gates")
    return tuple(parts)


def _num_media(modality: Modality, manifests: Manifests) -> int:
    """Return how many media a stage reads, each manifest counted once."""
    sets: Mapping[str, DataSet] = {
        data.manifest: data for data in (*modality.train.values(), *modality.test.values())
    }
    return sum(manifests.report(data).media for data in sets.values())


def _medium_bytes(modality: Modality) -> int | None:
    _, encoder = modality.parts
    name = hub_id(encoder.kind, encoder.options)
    if name is not None and name not in known_sizes()["bases"]:
        return None  # its sizes are on the hub, too
    if encoder.kind == "precomputed":
        return None  # the number of tokens is in the files
    try:
        return features_of(modality).cached_bytes
    except PathWeaveError:
        return None  # what is wrong with it is told elsewhere


def _reading(recipe: Recipe) -> Reading | None:
    """Return how the language model reads text; None where its files are not here."""
    try:
        directory, config = llm_files(recipe)
        context = context_of(config)
        # What is wrong with files is told elsewhere.
        return None if context is None else Reading(load_tokenizer(directory), context)
    except PathWeaveError:
        return None


def _answers(recipe: Recipe, stages: list[StagePlan]) -> int:
    """Return how many samples are scored, over all stages."""
    after_each = [sum(test.scored for test in stage.test) for stage in stages]
    ready = [stage.name for stage in stages if stage.state == "in the base"]
    learnt = [recipe.curriculum.index(names[-1]) + 1 for names in stages_of(recipe, ready)]
    repeated = sum(sum(after_each[:count]) for count in learnt)
    if not recipe.evaluation.whole_at_end:
        return repeated
    return repeated + sum(t.data.samples - t.scored for stage in stages for t in stage.test)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
