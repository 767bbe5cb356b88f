"""Splits without leaks: what belongs together stays on one side."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def split_without_leaks(
    labels: Mapping[str, str], keys: Mapping[str, Sequence[str]], seed: int
) -> tuple[dict[str, str], list[str]]:
    """Return the split of each sample, and the classes that are too rare to be tested.

    Samples that share a key, directly or through others, are a unit, which stays in one split. Of
    every class 70, 15 and 15 % go to ``train``, ``val`` and ``test``, as far as units allow, and of
    a class of three units or more at least one to each; all units of a rarer class are learnt.

    Args:
        labels: Label of each sample, by its name.
        keys: What it may share with others, by its name.
        seed: Of the order of units of one size.
    """
    parts = _units(keys)
    order = np.random.default_rng(seed).permutation(len(parts))
    parts = sorted((parts[i] for i in order), key=len, reverse=True)
    counts = [Counter(labels[name] for name in part) for part in parts]
    holding = defaultdict(list)
    for index, count in enumerate(counts):
        for label in count:
            holding[label].append(index)
    total = Counter(labels.values())
    have: dict[str, Counter[str]] = {split: Counter() for split in SHARES}
    place: dict[int, str] = {}
    # The rarest first: of the others there is more to choose from.
    for label in sorted(holding, key=lambda each: (len(holding[each]), each)):
        todo = [index for index in holding[label] if index not in place]
        for done, index in enumerate(todo):
            lacking = [split for split in SHARES if not have[split][label]]
            if len(holding[label]) < len(SHARES):
                split = "train"
            elif len(todo) - done <= len(lacking):
                split = lacking[0]
            else:
                split = max(
                    SHARES,
                    key=lambda s: (
                        SHARES[s] * total[label] - have[s][label],
                        SHARES[s] * total.total() - have[s].total(),
                    ),
                )
            place[index] = split
            have[split] += counts[index]
    rare = sorted(label for label, units in holding.items() if len(units) < len(SHARES))
    return {name: place[i] for i, part in enumerate(parts) for name in part}, rare


def _units(keys: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names that share keys, directly or through others, in an order of their own."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for shared in keys.values():
        for key in shared[1:]:
            above[top(key)] = top(shared[0])
    units = defaultdict(list)
    for name in sorted(keys):
        units[top(keys[name][0])].append(name)
    return sorted(units.values())
