"""What one sample is made of, and records of which several are one sample."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pathweave.datasets.patterns import fill
from pathweave.errors import ManifestError


@dataclass(frozen=True)
class Entry:
    """What one sample is made of.

    Args:
        place: File and row, for messages.
        values: The fields of its record, joined, with ``split``, ``row`` and ``folder``.
        question: The question, or an empty text.
        targets: Captions, answers or labels.
        problem: Why it cannot be used, or an empty text.
        flaw: What is wrong, where this is no sample of its own: one of the captions of a sample, a
            row of a table.
        left_out: Why it does not count, or an empty text.
    """

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    targets: tuple[str, ...] = ()
    problem: str = ""
    flaw: str = ""
    left_out: str = ""


def grouped(entries: Iterable[Entry], pattern: tuple[str, ...]) -> Iterator[Entry]:
    """Yield an entry for all that fill a pattern equally, with the targets of each.

    What is broken is a flaw of its group where the rest can be used. A broken record that names no
    group stands for a sample, which it may well have been.

    Args:
        entries: The entries; all of them are held in memory.
        pattern: What is equal in a group.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        try:
            key = fill(pattern, entry.values)[0]
            groups.setdefault(key, []).append(entry)
        except ManifestError as error:
            yield Entry(entry.place, problem=entry.problem or str(error))
    for group in groups.values():
        yield from _merged(group)


def _merged(group: list[Entry]) -> Iterator[Entry]:
    """Yield the one sample of a group, and what is wrong with parts of it."""
    sound = [entry for entry in group if not entry.problem]
    broken = [entry for entry in group if entry.problem]
    if sound:
        targets = tuple(target for entry in sound for target in entry.targets)
        yield Entry(sound[0].place, sound[0].values, sound[0].question, targets)
    else:
        yield broken.pop(0)
    for entry in broken:
        yield Entry(entry.place, flaw=entry.problem)
