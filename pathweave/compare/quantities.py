"""Quantities of a cell: transfer, forgetting and what is left at the end, by kind of score.

Scores of different metrics are not on one scale. The paper averages them all the same, which is the
kind ``mixed``; the other kinds average what is alike.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pathweave.errors import RunError
from pathweave.evaluate.scores import ScoreMatrix, mean
from pathweave.metrics import unit_of

MEAN = "mean"


class Quantity(StrEnum):
    """A number that is computed of a modality.

    T: score right after learning it. F: mean loss of all earlier modalities after learning it.
    LOST: its own loss at the end. FINAL: score after the last stage. WHOLE: the same on whole test
    sets.
    """

    T = "T"
    F = "F"
    LOST = "lost"
    FINAL = "final"
    WHOLE = "whole"


class Kind(StrEnum):
    """A kind of score."""

    ACCURACY = "accuracy"
    CAPTIONS = "captions"
    MIXED = "mixed"


APART = (Kind.ACCURACY, Kind.CAPTIONS)
"""The kinds that are not a mixture of others."""


class Key(NamedTuple):
    """What a number is.

    Attributes:
        quantity: Which quantity.
        modality: Name, or ``mean`` over modalities.
        kind: Of which scores.
    """

    quantity: Quantity
    modality: str
    kind: Kind


Draws = Float[np.ndarray, " draws"]
"""The score of the samples themselves, then that of resamples of them."""


def kind_of(metric: str) -> Kind:
    """Return whether scores of a metric are accuracies or scores of captions.

    Example:
        >>> print(kind_of("exact_match"), kind_of("cider_d"))
        accuracy captions
    """
    return Kind.ACCURACY if unit_of(metric) == "%" else Kind.CAPTIONS


def quantities(
    matrix: "ScoreMatrix[np.ndarray]",
    whole: Mapping[tuple[str, str], Draws],
    metrics: Mapping[tuple[str, str], str],
) -> dict[Key, Draws]:
    """Return everything that is known of a cell.

    The mean of T and of F is over the stages after the first, which is the base that all methods
    start from; the mean of ``lost`` is over all modalities but the last, that of ``final`` and
    ``whole`` over all.

    Args:
        matrix: The scores after each stage.
        whole: Scores of whole test sets after the last stage, by modality and test set.
        metrics: Metric by modality and test set; a set that was not scored leaves things unknown.
    """
    found: dict[Key, Draws] = {}
    for kind in Kind:
        datasets: dict[str, list[str]] = {}
        for (modality, dataset), metric in metrics.items():
            if kind in (Kind.MIXED, kind_of(metric)):
                datasets.setdefault(modality, []).append(dataset)
        for quantity, computed in _computed(matrix.only(datasets), datasets, whole):
            for name, compute in computed.items():
                with suppress(RunError, KeyError):  # a score is missing
                    found[Key(quantity, name, kind)] = compute()
            base = matrix.curriculum[0] if quantity in (Quantity.T, Quantity.F) else None
            counted = [Key(quantity, name, kind) for name in computed if name != base]
            # A mean over fewer modalities than other cells have would not be comparable.
            if counted and all(key in found for key in counted):
                found[Key(quantity, MEAN, kind)] = mean([found[key] for key in counted])
    return found


def _computed(
    matrix: "ScoreMatrix[np.ndarray]",
    datasets: Mapping[str, list[str]],
    whole: Mapping[tuple[str, str], Draws],
) -> Iterator[tuple[Quantity, dict[str, Callable[[], Draws]]]]:
    """Yield each quantity, and by modality how it is computed."""
    stages = {name: i for i, name in enumerate(matrix.curriculum) if name in datasets}
    last = len(matrix.curriculum) - 1

    def loss_after(stage: int) -> Draws:
        olds = [name for name, learnt in stages.items() if learnt < stage]
        return mean([matrix.forgetting(stage, old) for old in olds])

    def whole_score(name: str) -> Draws:
        return mean([whole[name, dataset] for dataset in datasets[name]])

    first = min(stages.values(), default=last)
    later = {name: i for i, name in enumerate(matrix.curriculum) if i > first}
    yield Quantity.T, {name: partial(matrix.transfer, i) for name, i in stages.items()}
    yield Quantity.F, {name: partial(loss_after, i) for name, i in later.items()}
    olds = [name for name, learnt in stages.items() if learnt < last]
    yield Quantity.LOST, {name: partial(matrix.forgetting, last, name) for name in olds}
    yield Quantity.FINAL, {name: partial(matrix.mean_score, last, name) for name in stages}
    yield Quantity.WHOLE, {name: partial(whole_score, name) for name in stages}
