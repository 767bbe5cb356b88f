"""How sure a score is, and a difference of two: bootstrap over the things that were shown.

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

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: a difference is then not chance."""
        return not self.low <= 0.0 <= self.high


def score(statistics: Statistics, combine: Combine) -> float:
    """Return the score of the samples themselves."""
    return float(combine(statistics.sum(0)[None], np.array([float(len(statistics))]))[0])


def resample(
    statistics: Statistics,
    combine: Combine,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Float[np.ndarray, " resamples"]:
    """Return the score of each resample.

    Equal clusters and an equal seed draw the same things, so what two systems get is paired, and
    sums and differences of it are resamples of sums and differences.

    Args:
        statistics: Of each sample.
        combine: From their sums and the number of samples to the score.
        clusters: The thing each sample shows; None takes each sample as a thing of its own.
        num_resamples: How many sets to draw.
        seed: Seed of the draws.

    Raises:
        ManifestError: If there are fewer than two things.
    """
    labels = _labels(clusters, len(statistics))
    num_clusters = int(labels.max(initial=-1)) + 1
    if num_clusters < 2:
        raise ManifestError(
            f"an interval must rest on at least 2 objects, got {num_clusters}; evaluate more "
            "samples, or give the objects they show in the field 'object'"
        )
    sums = np.zeros((num_clusters, statistics.shape[1]))
    np.add.at(sums, labels, statistics)
    sizes = np.bincount(labels).astype(float)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // num_clusters)
    scores = []
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        weights = _draw(rng, count, num_clusters)
        scores.append(combine(weights @ sums, weights @ sizes))
    return np.concatenate(scores)


def interval(
    statistics: Statistics,
    combine: Combine,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a score with its interval of confidence; the arguments are those of ``resample``.

    Raises:
        ManifestError: If there are fewer than two things.

    Example:
        >>> right = np.array([[100.0], [0.0], [100.0], [100.0]])
        >>> interval(right, lambda totals, counts: totals[:, 0] / counts)
        Interval(value=75.0, low=25.0, high=100.0, num_clusters=4)
    """
    drawn = resample(statistics, combine, clusters, num_resamples, seed)
    return quantiles(score(statistics, combine), drawn, clusters or range(len(statistics)))


def paired_difference(
    first: Statistics,
    second: Float[np.ndarray, "others statistics"],
    combine: Combine,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the score of the first system minus that of the second on the same samples.

    Both are scored on the same resamples, so what makes a sample hard for both cancels.

    Args:
        first: Statistics of each sample under the first system.
        second: Of the same samples in the same order under the second.
        combine: From their sums and the number of samples to the score.
        clusters: The thing each sample shows; None takes each sample as a thing of its own.
        num_resamples: How many sets to draw.
        seed: Seed of the draws.

    Raises:
        ManifestError: If there are fewer than two things, or the systems have not answered as
            many samples.
    """
    if first.shape != second.shape:
        raise ManifestError(
            f"two systems must have answered the same samples to be compared, got {len(first)} "
            f"and {len(second)}; evaluate both on one test set"
        )
    drawn = [resample(s, combine, clusters, num_resamples, seed) for s in (first, second)]
    value = score(first, combine) - score(second, combine)
    return quantiles(value, drawn[0] - drawn[1], clusters or range(len(first)))


def quantiles(
    value: float, drawn: Float[np.ndarray, " resamples"], clusters: Sequence[Hashable]
) -> Interval:
    """Return the interval that resamples give, whatever sum of scores they are of."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), len(set(clusters)))


def _labels(clusters: Sequence[Hashable] | None, num_samples: int) -> Int[np.ndarray, " samples"]:
    if clusters is None:
        return np.arange(num_samples)
    if len(clusters) != num_samples:
        raise ManifestError(
            f"there must be one object a sample, got {len(clusters)} for {num_samples} samples"
        )
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], int)


def _draw(
    rng: np.random.Generator, count: int, num_clusters: int
) -> Float[np.ndarray, "resamples clusters"]:
    """Return how often each thing is drawn, a row a resample."""
    return rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), count).astype(
        float
    )
