"""Scores of many systems on the same resamples of the things that a modality's test sets show.

The bootstrap is that of ``pathweave.evaluate.bootstrap``, with two additions. All test sets of a
modality are drawn together, since questions and captions may show the same things; and a whole grid
is scored on one draw, so that every difference within it is paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pathweave.evaluate.bootstrap import NUM_RESAMPLES, Combine, Statistics

# Numbers of draws held at once.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Column:
    """What one system contributes on one test set.

    Attributes:
        dataset: The test set; columns of one test set have the same samples in the same order.
        statistics: Of each sample.
        combine: From their sums and the number of samples to the score.
    """

    dataset: str
    statistics: Statistics
    combine: Combine


def draw_scores(
    columns: Sequence[Column],
    objects: Mapping[str, Int[np.ndarray, " samples"]],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Float[np.ndarray, " draws"]]:
    """Return the score of each column on each resample, the same resamples for all.

    Args:
        columns: What is scored.
        objects: The thing each sample shows, by test set; a thing has one number in all of them.
        num_resamples: How many sets to draw.
        seed: Seed of the draws.

    Returns:
        An array for each column, of which the first entry is the score of the samples themselves.
        A resample without any sample of a test set scores NaN there.
    """
    labels, num_objects = _labels(objects)
    sizes = {name: np.bincount(own, minlength=num_objects) for name, own in labels.items()}
    sums = [_sums(column.statistics, labels[column.dataset], num_objects) for column in columns]
    stacked = np.concatenate([*sums, *(size[:, None] for size in sizes.values())], axis=1)
    totals = np.concatenate([stacked.sum(0)[None], *_totals(stacked, num_resamples, seed)])
    counts = dict(zip(sizes, totals[:, -len(sizes) :].T, strict=True))
    ends = np.cumsum([column.statistics.shape[1] for column in columns])
    scores = []
    for column, end in zip(columns, ends, strict=True):
        own = totals[:, end - column.statistics.shape[1] : end]
        with np.errstate(invalid="ignore", divide="ignore"):
            score = column.combine(own, counts[column.dataset])
        scores.append(np.where(counts[column.dataset] > 0, score, np.nan))
    return scores


def _labels(
    objects: Mapping[str, Int[np.ndarray, " samples"]],
) -> tuple[dict[str, Int[np.ndarray, " samples"]], int]:
    """Return the things numbered in the order in which they come, and how many there are."""
    numbers: dict[int, int] = {}
    labels = {
        name: np.array([numbers.setdefault(int(thing), len(numbers)) for thing in own], dtype=int)
        for name, own in objects.items()
    }
    return labels, len(numbers)


def _sums(
    statistics: Statistics, labels: Int[np.ndarray, " samples"], num_objects: int
) -> Float[np.ndarray, "objects statistics"]:
    sums = np.zeros((num_objects, statistics.shape[1]))
    np.add.at(sums, labels, statistics)
    return sums


def _totals(
    stacked: Float[np.ndarray, "objects statistics"], num_resamples: int, seed: int
) -> list[Float[np.ndarray, "resamples statistics"]]:
    num_objects = len(stacked)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // num_objects)
    share = np.full(num_objects, 1 / num_objects)
    return [
        rng.multinomial(num_objects, share, min(rows, num_resamples - start)) @ stacked
        for start in range(0, num_resamples, rows)
    ]
