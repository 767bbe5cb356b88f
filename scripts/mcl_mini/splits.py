"""Deterministic splits: the hash of an id decides, so a rebuild can never move a thing."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

SHARES = {"train": 0.55, "validation": 0.10, "test": 0.35}


def digest(text: str) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"mcl-mini/{text}".encode()).digest()[:8], "big")


def assign(groups: Mapping[str, str], shares: Mapping[str, float] = SHARES) -> dict[str, str]:
    """Gives each group to a share, class by class.

    Args:
        groups: group id -> class. All things of a group stay together.
        shares: name of the share -> its fraction.

    Returns:
        Group id -> name of the share. Within a class, groups are taken in the order of their
        hash, each to the share that is furthest below its fraction.
    """
    by_class = defaultdict(list)
    for group, label in groups.items():
        by_class[label].append(group)
    result = {}
    for members in by_class.values():
        filled = dict.fromkeys(shares, 0)
        for rank, group in enumerate(sorted(members, key=digest), start=1):
            share = max(shares, key=lambda name: shares[name] * rank - filled[name])
            filled[share] += 1
            result[group] = share
    return result


class Groups:
    """Union-find over ids: things that are too alike are put in one group."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.parent = {name: name for name in ids}

    def find(self, name: str) -> str:
        """The representative (alphabetically first member) of the group of an id."""
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def join(self, left: str, right: str) -> None:
        """Puts the groups of two ids together."""
        first, second = sorted((self.find(left), self.find(right)))
        self.parent[second] = first
