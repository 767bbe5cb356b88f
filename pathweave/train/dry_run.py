"""Dry run: what ``evolve`` would do and what is missing; nothing is loaded or fetched.

Everything is looked at before anything is said, so that all problems are told at once.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pathweave.bases.pretrained import PICTURE_PATH
from pathweave.bases.vision_llm import decoders_of
from pathweave.data.readers import common_width
from pathweave.encoders import SERIES, hub_id
from pathweave.errors import PathWeaveError
from pathweave.estimate.costs import Features
from pathweave.estimate.encoders import features_of
from pathweave.estimate.shapes import known_sizes, shape_model
from pathweave.methods import check_stages, method_of, stages_of
from pathweave.methods.path import OWN_CONNECTOR, WHOLE_CONNECTOR
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.schema import DataSet, Modality, Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import features_home
from pathweave.train.curriculum import lacking_data
from pathweave.train.manifest_reports import ManifestReport, Manifests, noted
from pathweave.train.presence import Presence, check_weights, is_published_base, is_vision_base


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


def make_plan(recipe: Recipe, out: Path) -> Plan:
    """Look at everything that a run of a recipe needs.

    Every manifest is read whole, and the first medium of each is decoded. Whether features are in
    the cache already is not known, as that takes the encoder's weights.

    Args:
        recipe: The run.
        out: Its directory, which need not exist.
    """
    run, weights = RunDirectory(out), check_weights(recipe)
    problems = [f"{found.part}: {found.problem}" for found in weights if found.problem]
    with noted(problems):
        run.check(recipe)
    model: PathWeave | None = None
    if is_vision_base(recipe.base):
        with noted(problems):
            model = shape_model(recipe)
    native = decoders_of(() if model is None else model.base.native)
    manifests, finished = Manifests(recipe, problems, native), run.finished(recipe)
    ready = [PICTURE_PATH] if is_published_base(recipe.base) else []
    stages = [_stage(recipe, name, finished, ready, manifests) for name in recipe.curriculum]
    learnt = [stage.name for stage in stages if stage.state == "to learn"]
    todo = [stage.name for stage in stages if stage.state != "learnt"]
    problems += lacking_data(recipe, learnt, todo)
    if model is not None:
        with noted(problems):
            check_stages(model, recipe, learnt)
    cache = features_home()
    needed = sum(stage.feature_bytes for stage in stages)
    existing = next(place for place in (cache, *cache.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        problems.append(
            f"{cache} must have {needed / 1e9:,.1f} GB free for features (less what is there "
            f"already), got {free / 1e9:,.1f} GB; free some, or set PATHWEAVE_HOME to another disk"
        )
    # After a stage all modalities learnt so far are scored, at the end the rest of each set.
    after_each = [sum(test.scored for test in stage.test) for stage in stages]
    last = [recipe.curriculum.index(names[-1]) + 1 for names in stages_of(recipe, ready)]
    answers = sum(sum(after_each[:count]) for count in last)
    if recipe.evaluation.whole_at_end:
        answers += sum(test.data.samples - test.scored for stage in stages for test in stage.test)
    return Plan(
        recipe=recipe.name,
        out=str(out),
        weights=tuple(weights),
        stages=tuple(stages),
        answers=answers,
        cache=str(cache),
        cache_bytes=needed,
        free_bytes=free,
        problems=tuple(dict.fromkeys(problems)),
    )


def _stage(
    recipe: Recipe, name: str, finished: list[str], ready: list[str], manifests: Manifests
) -> StagePlan:
    modality, training = recipe.modalities[name], recipe.training_of(name)
    comes_with_base = name in ready and not training.connector
    state = "learnt" if name in finished else "in the base" if comes_with_base else "to learn"
    predecessors = _predecessors(recipe, name, ready)
    weights = sum(data.weight for data in modality.train.values())
    train = []
    for key, data in modality.train.items():
        report, share = manifests.report(data), data.weight / weights
        drawn = share * (training.steps * training.batch_size)
        rounds = drawn / report.samples if report.samples else 0.0
        train.append(TrainPlan(key, report, round(share, 4), round(rounds, 2)))
    test = []
    for key, test_set in modality.test.items():
        report = manifests.report(test_set)
        scored = min(report.samples, recipe.evaluation.subset or report.samples)
        test.append(TestPlan(key, report, test_set.metric, scored))
    medium_bytes = None
    with noted(manifests.problems):
        medium_bytes = _medium_bytes(recipe, name)
    sets: list[DataSet] = [*modality.train.values(), *modality.test.values()]
    media = {data.manifest: manifests.report(data).media for data in sets}
    return StagePlan(
        name=name,
        state=state,
        trains=_trains(recipe, name, predecessors) if state == "to learn" else (),
        predecessors=predecessors,
        steps=training.steps,
        batch_size=training.batch_size,
        train=tuple(train),
        test=tuple(test),
        medium_bytes=medium_bytes,
        feature_bytes=(medium_bytes or 0) * sum(media.values()),
    )


def _predecessors(recipe: Recipe, name: str, ready: list[str]) -> tuple[str, ...]:
    """Return the paths whose adapters a stage builds on."""
    adapted = [
        each
        for each in recipe.curriculum
        if each not in ready and not recipe.training_of(each).connector
    ]
    if recipe.method.name != "pathweave" or name not in adapted:
        return ()
    declared = recipe.predecessors_of(name)
    return tuple(adapted[: adapted.index(name)]) if declared is None else declared


def _trains(recipe: Recipe, name: str, predecessors: tuple[str, ...]) -> tuple[str, ...]:
    parts, method = ["queries", "input norm and projection"], recipe.method
    if recipe.training_of(name).connector:
        return (*parts, *WHOLE_CONNECTOR)
    if trains := method_of(recipe, name).trains:
        return (*parts, *trains)
    if is_vision_base(recipe.base):
        parts.append(OWN_CONNECTOR)
    parts.append(f"adapters of rank {method.rank}")
    if predecessors and method.in_adapter is not None:
        parts.append(f"in-adapters for {', '.join(predecessors)}")
    if predecessors and method.gate is not None:
        parts.append("gates")
    return tuple(parts)


def _medium_bytes(recipe: Recipe, name: str) -> int | None:
    """Return the bytes of features of a medium of a stage; None where they are not known.

    Raises:
        RecipeError: If a path would read features of several widths.
    """
    read = {other: recipe.modalities[other] for other in recipe.read_by(name)}
    found = {other: features for other in read if (features := _features(read[other], recipe.base))}
    common_width(name, {other: features.width for other, features in found.items()})
    # The number of features that another program has computed, and of samples, is in the files.
    kinds = {modality.parts[1].kind for modality in read.values()}
    if len(found) < len(read) or kinds & {"precomputed", SERIES}:
        return None
    return max(features.cached_bytes for features in found.values())


def _features(modality: Modality, base: str) -> Features | None:
    """Return what is read of a medium; None where the shapes are on the hub, too, or wrong."""
    _, encoder = modality.parts
    remote = hub_id(encoder.kind, encoder.options)
    if remote is None or remote in known_sizes()["bases"]:
        with suppress(PathWeaveError):  # what is wrong with it is told elsewhere
            return features_of(modality, base)
    return None
