"""One sample of the benchmark, and one modality made of samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Credit:
    """Where a medium comes from and on what terms it may be shared."""

    source: str
    licence: str
    attribution: str


@dataclass(frozen=True)
class Item:
    """One medium with what is known about it.

    `thing` names the object, recording, sprite set or instrument shown: things never cross
    splits. An item without `label` asks no question; one without `captions` is not captioned.
    """

    key: str
    data: bytes
    thing: str
    split: str
    credit: Credit
    label: str = ""
    captions: Sequence[str] = ()


def without_copies(items: Sequence[Item]) -> list[Item]:
    """The items whose bytes did not occur before."""
    first: dict[bytes, Item] = {}
    for item in items:
        first.setdefault(item.data, item)
    return list(first.values())


@dataclass(frozen=True)
class Modality:
    """All items of one modality and the words used to ask about them.

    The first question and the first prompt are used for validation and test; training
    samples also use the others.
    """

    name: str
    questions: Sequence[str]
    prompts: Sequence[str]
    items: Sequence[Item]
    choices: Sequence[str] = field(default=())
