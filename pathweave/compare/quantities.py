"""Quantities of a cell: transfer, forgetting and what is left at the end, by kind of score.

Scores of different metrics are not on one scale. The paper averages them all the same, which is the
kind ``mixed``; the other kinds average what is alike.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pathweave.errors import RunError
from pathweave.evaluate.metrics import unit_of
from pathweave.evaluate.scores import ScoreMatrix, mean

MEAN = "mean"
TRANSFER, FORGETTING, LOST, FINAL = "T", "F", "lost", "final"
WHOLE = "whole"


@dataclass(frozen=True)
class Kind:
    """A kind of score, and its name in tables and in pictures."""

    in_tables: str
    in_pictures: str


ACCURACY, CAPTIONS, MIXED = "accuracy", "captions", "mixed"
KINDS = {
    ACCURACY: Kind("accuracy in %", "accuracy, %"),
    CAPTIONS: Kind(
        "captions, CIDEr-D x100 or as the metric says", "captions, points of the metric"
    ),
    MIXED: Kind("accuracy and captions mixed, as in the paper", "accuracy and captions mixed"),
}


class Key(NamedTuple):
    """What a number is.

    Attributes:
        quantity: ``T``: score of a modality right after learning it. ``F``: mean loss of all
            earlier modalities after learning it. ``lost``: loss of the modality itself at the end.
            ``final``: score after the last stage. ``whole``: the same on whole test sets.
        modality: Name, or ``mean`` over modalities.
        kind: One of ``KINDS``.
    """

    quantity: str
    modality: str
    kind: str


Draws = Float[np.ndarray, " draws"]
"""The score of the samples themselves, then that of resamples of them."""


def kind_of(metric: str) -> str:
    """Return whether scores of a metric are accuracies or scores of captions.

    Example:
        >>> kind_of("exact_match"), kind_of("cider_d")
        ('accuracy', 'captions')
    """
    return ACCURACY if unit_of(metric) == "%" else CAPTIONS


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
    for kind in KINDS:
        datasets: dict[str, list[str]] = {}
        for (modality, dataset), metric in metrics.items():
            if kind in (MIXED, kind_of(metric)):
                datasets.setdefault(modality, []).append(dataset)
        for quantity, computed in _computed(matrix.only(datasets), datasets, whole):
            known: dict[str, Draws] = {}
            for name, compute in computed.items():
                with suppress(RunError, KeyError):  # a score is missing
                    known[name] = compute()
            found |= {Key(quantity, name, kind): value for name, value in known.items()}
            base = matrix.curriculum[0] if quantity in (TRANSFER, FORGETTING) else None
            counted = [name for name in computed if name != base]
            # A mean over fewer modalities than other cells have would not be comparable.
            if counted and all(name in known for name in counted):
                found[Key(quantity, MEAN, kind)] = mean([known[name] for name in counted])
    return found


def _computed(
    matrix: "ScoreMatrix[np.ndarray]",
    datasets: Mapping[str, list[str]],
    whole: Mapping[tuple[str, str], Draws],
) -> Iterator[tuple[str, dict[str, Callable[[], Draws]]]]:
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
    yield TRANSFER, {name: partial(matrix.transfer, i) for name, i in stages.items()}
    yield FORGETTING, {name: partial(loss_after, i) for name, i in later.items()}
    olds = [name for name, learnt in stages.items() if learnt < last]
    yield LOST, {name: partial(matrix.forgetting, last, name) for name in olds}
    yield FINAL, {name: partial(matrix.mean_score, last, name) for name in stages}
    yield WHOLE, {name: partial(whole_score, name) for name in stages}
