"""Bootstrap over objects: confidence intervals of scores and of their differences.

Views of one thing are not independent samples, so things are drawn, with all their samples: a
clustered bootstrap (Davison and Hinkley, Bootstrap Methods and their Application, 1997). A metric
is statistics of each sample and a function of their sums, so a resample costs one row of a matrix
product; nothing is scored again. Document frequencies of CIDEr are not drawn anew.

The intervals are of the choice of test samples only. How much a score depends on the seed of the
training is another question, answered by training again.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pathweave.errors import ManifestError

NUM_RESAMPLES = 1000
LEVEL = 0.95

# Numbers of draws held at once.
_BLOCK = 4_000_000

Statistics = Float[np.ndarray, "samples statistics"]
# Sums of statistics over the samples of each set, and how many these are, to a score a set.
Combine = Callable[
    [Float[np.ndarray, "sets statistics"], Float[np.ndarray, " sets"]],
    Float[np.ndarray, " sets"],
]


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of two, and where it lies with a probability of 95 %.

    Attributes:
        value: The score of the samples themselves.
        low: Lower end, the 2.5 % quantile of the resamples.
        high: Upper end, the 97.5 % quantile.
        num_clusters: Things that were drawn; below about thirty the interval is too narrow.
    """

    value: float
    low: float
    high: float
    num_clusters: int


def score(statistics: Statistics, combine: Combine) -> float:
    """Return the score of the samples themselves."""
    return float(combine(statistics.sum(0)[None], np.array([float(len(statistics))]))[0])


@dataclass(frozen=True)
class Column:
    """What one system contributes on one test set.

    Attributes:
        statistics: Of each sample.
        combine: From their sums and the number of samples to the score.
        clusters: The thing each sample shows; None takes each sample as a thing of its own.
    """

    statistics: Statistics
    combine: Combine
    clusters: Sequence[Hashable] | None = None


def draw_scores(
    columns: Sequence[Column], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Float[np.ndarray, " draws"]]:
    """Return the score of each column on each resample, the same resamples for all.

    What columns get is paired, so sums and differences of it are resamples of sums and differences.
    Equal things of two columns are one thing, be the columns of one test set or of two.

    Args:
        columns: What is scored.
        num_resamples: How many sets to draw.
        seed: Seed of the draws.

    Returns:
        An array for each column, of which the first entry is the score of the samples themselves.
        A resample without any sample of a column scores NaN there.

    Raises:
        ManifestError: If a column has not one thing a sample.
    """
    numbers: dict[Hashable, int] = {}  # of things, in the order in which they come
    labels = [_labels(column, numbers) for column in columns]
    summed = []
    for column, own in zip(columns, labels, strict=True):
        sums = np.zeros((len(numbers), column.statistics.shape[1]))
        np.add.at(sums, own, column.statistics)
        summed.append((sums, np.bincount(own, minlength=len(numbers)).astype(float)))
    drawn = [[np.array([score(column.statistics, column.combine)])] for column in columns]
    rng = np.random.default_rng(seed)
    share = np.full(len(numbers), 1 / max(1, len(numbers)))
    rows = max(1, _BLOCK // max(1, len(numbers)))
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        # How often each thing is drawn, a row a resample.
        weights = rng.multinomial(len(numbers), share, count).astype(float)
        for column, (sums, sizes), scores in zip(columns, summed, drawn, strict=True):
            counts = weights @ sizes
            with np.errstate(invalid="ignore", divide="ignore"):
                found = column.combine(weights @ sums, counts)
            scores.append(np.where(counts > 0, found, np.nan))
    return [np.concatenate(scores) for scores in drawn]


def interval(
    statistics: Statistics,
    combine: Combine,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    minus: Statistics | None = None,
) -> Interval:
    """Return a score with its interval of confidence.

    Args:
        statistics: Of each sample.
        combine: From their sums and the number of samples to the score.
        clusters: The thing each sample shows; None takes each sample as a thing of its own.
        num_resamples: How many sets to draw.
        seed: Seed of the draws.
        minus: Statistics of another system, whose score is taken off; see ``paired_difference``.

    Raises:
        ManifestError: If there are fewer than two things.

    Example:
        >>> right = np.array([[100.0], [0.0], [100.0], [100.0]])
        >>> interval(right, lambda totals, counts: totals[:, 0] / counts)
        Interval(value=75.0, low=25.0, high=100.0, num_clusters=4)
    """
    num_clusters = len(statistics) if clusters is None else len(set(clusters))
    if num_clusters < 2:
        raise ManifestError(
            f"an interval must rest on at least 2 objects, got {num_clusters}; evaluate more "
            "samples, or give the objects they show in the field 'object'"
        )
    systems = [statistics] if minus is None else [statistics, minus]
    columns = [Column(each, combine, clusters) for each in systems]
    drawn, *other = draw_scores(columns, num_resamples, seed)
    drawn = drawn - other[0] if other else drawn
    low, high = np.quantile(drawn[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(drawn[0]), float(low), float(high), num_clusters)


def paired_difference(
    first: Statistics,
    second: Float[np.ndarray, "others statistics"],
    combine: Combine,
    clusters: Sequence[Hashable] | None = None,
    **options: int,
) -> Interval:
    """Return the score of the first system minus that of the second on the same samples.

    Both are scored on the same resamples, so what makes a sample hard for both cancels.

    Args:
        first: Statistics of each sample under the first system.
        second: Of the same samples in the same order under the second.
        combine: From their sums and the number of samples to the score.
        clusters: The thing each sample shows; None takes each sample as a thing of its own.
        **options: ``num_resamples`` and ``seed`` of ``interval``.

    Raises:
        ManifestError: If there are fewer than two things, or the systems have not answered as
            many samples.
    """
    if first.shape != second.shape:
        raise ManifestError(
            f"two systems must have answered the same samples to be compared, got {len(first)} "
            f"and {len(second)}; evaluate both on one test set"
        )
    return interval(first, combine, clusters, minus=second, **options)


def _labels(column: Column, numbers: dict[Hashable, int]) -> Int[np.ndarray, " samples"]:
    """Return the things of a column numbered in the order in which they come."""
    num_samples = len(column.statistics)
    clusters = range(num_samples) if column.clusters is None else column.clusters
    if len(clusters) != num_samples:
        raise ManifestError(
            f"there must be one object a sample, got {len(clusters)} for {num_samples} samples"
        )
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], int)
