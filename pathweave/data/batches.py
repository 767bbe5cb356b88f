"""Which samples make up which training step: a function of the seed alone.

Every process computes the same global batches and takes its share, so a run is the same on one
process or on many, and a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Index = tuple[int, int]
STEPS_PER_BUCKET = 8
# Lengths are compared this coarsely: sorting exactly would put samples with the same answer, hence
# the same length, into the same batch, which learns badly (docs/log.md).
GRAIN = 16


def index_batches(
    sizes: Sequence[int],
    weights: Sequence[float],
    batch_size: int,
    seed: int,
    length: Callable[[Index], int],
) -> Iterator[list[Index]]:
    """Yield batches of (set, sample) for ever.

    Sets are drawn by weight; within a set every sample comes once before any comes again. Samples
    of roughly equal length share a batch: eight batches are drawn at a time, sorted by coarse
    length, cut up, and put in random order, so that padding is small and the order still random.

    Args:
        sizes: Number of samples in each set.
        weights: Relative share of each set.
        batch_size: Samples per batch, over all processes.
        seed: Seed of the order.
        length: Length of a sample, in characters.
    """
    random = np.random.default_rng(seed)
    shares = np.asarray(weights, dtype=np.float64)
    orders = [_shuffled(size, seed, which) for which, size in enumerate(sizes)]
    while True:
        count = batch_size * STEPS_PER_BUCKET
        chosen = random.choice(len(sizes), size=count, p=shares / shares.sum())
        drawn = sorted(
            ((int(w), next(orders[w])) for w in chosen), key=lambda index: length(index) // GRAIN
        )
        for start in random.permutation(STEPS_PER_BUCKET) * batch_size:
            yield drawn[start : start + batch_size]


def _shuffled(size: int, seed: int, which: int) -> Iterator[int]:
    """Yield every sample of a set once per round, each round in an order of its own."""
    round_number = 0
    while True:
        random = np.random.default_rng([seed, which, round_number])
        yield from (int(i) for i in random.permutation(size))
        round_number += 1


def share(batch: Sequence[Index], process: int, num_processes: int) -> list[Index]:
    """Return the part of a global batch that one process computes: every n-th sample.

    Example:
        >>> share([(0, 5), (0, 6), (0, 7)], process=1, num_processes=2)
        [(0, 6)]
    """
    return list(batch[process::num_processes])
