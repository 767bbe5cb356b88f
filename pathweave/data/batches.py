"""Which samples make up which training step: a function of the seed alone.

Every process computes the same global batches and takes its share, so a run is the same on one
process or on many, and a resumed run sees what an uninterrupted one would have seen.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Index = tuple[int, int]
STEPS_PER_BUCKET = 8
# Lengths are compared this coarsely: sorting exactly would put samples with the same answer, hence
# the same length, into the same batch, which learns badly (docs/log.md).
GRAIN = 16


def balanced(labels: Sequence[str], power: float) -> list[int]:
    """Return the samples of one round over a set, those with rare labels more than once.

    A sample comes ``(most common count / its label's count) ** power`` times, rounded: 0 takes the
    set as it is, 1 evens the labels out, values between go part of the way.

    Args:
        labels: Label of each sample.
        power: In [0, 1].

    Example:
        >>> balanced(["a cat", "a cat", "a dog"], power=1.0)
        [0, 1, 2, 2]
    """
    counts = Counter(labels)
    most = max(counts.values(), default=0)
    times = {label: round((most / count) ** power) for label, count in counts.items()}
    return [i for i, label in enumerate(labels) for _ in range(times[label])]


def index_batches(
    rounds: Sequence[Sequence[int]],
    weights: Sequence[float],
    batch_size: int,
    seed: int,
    length: Callable[[Index], int],
) -> Iterator[list[Index]]:
    """Yield batches of (set, sample) for ever.

    Sets are drawn by weight; within a set every round is gone through before the next. Samples of
    roughly equal length share a batch: eight batches are drawn at a time, sorted by coarse
    length, cut up, and put in random order, so that padding is small and the order still random.

    Args:
        rounds: Samples of one round over each set, in any order; one may come more than once.
        weights: Relative share of each set.
        batch_size: Samples per batch, over all processes.
        seed: Seed of the order.
        length: Length of a sample, in characters.
    """
    random = np.random.default_rng(seed)
    shares = np.asarray(weights, dtype=np.float64)
    orders = [_shuffled(one, seed, which) for which, one in enumerate(rounds)]
    while True:
        count = batch_size * STEPS_PER_BUCKET
        chosen = random.choice(len(rounds), size=count, p=shares / shares.sum())
        drawn = sorted(
            ((int(w), next(orders[w])) for w in chosen), key=lambda index: length(index) // GRAIN
        )
        for start in random.permutation(STEPS_PER_BUCKET) * batch_size:
            yield drawn[start : start + batch_size]


def _shuffled(one: Sequence[int], seed: int, which: int) -> Iterator[int]:
    """Yield the samples of round after round, each round in an order of its own."""
    round_number = 0
    while True:
        random = np.random.default_rng([seed, which, round_number])
        yield from (one[i] for i in random.permutation(len(one)))
        round_number += 1


def share(batch: Sequence[Index], process: int, num_processes: int) -> list[Index]:
    """Return the part of a global batch that one process computes: every n-th sample.

    Example:
        >>> share([(0, 5), (0, 6), (0, 7)], process=1, num_processes=2)
        [(0, 6)]
    """
    return list(batch[process::num_processes])
