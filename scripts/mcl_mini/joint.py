"""Joint questions: two media of different modalities, and an answer that neither gives alone.

    python -m scripts.mcl_mini.joint --data data/mcl-mini

The media are those of the modalities, named by their paths; none is copied. Samples come in blocks
of four. A block takes two kinds of thing and one medium of each in either modality. The tasks `qa`
and `heard` put them together in all four ways with one question, so that each medium comes once
with "no" and once with another answer: whoever sees the question and one medium alone scores 50 %
at most. The task `pick` puts unlike ones together and asks for either kind: it is easier, as the
question and one medium tell the answer to whoever knows which of the two it is.

Things are shared out to couples before blocks are made of them. In validation and test sets a thing
is in one couple only, so that couples (the column `object`) are independent of each other; training
sets make new couples in every round.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, product, zip_longest
from pathlib import Path

from scripts.mcl_mini.balance import Row
from scripts.mcl_mini.check import CHECKSUMS, JOINT, answer_of, checksums, key_of, rows
from scripts.mcl_mini.furniture_labels import NAMES
from scripts.mcl_mini.items import SPLITS, Credit
from scripts.mcl_mini.splits import digest
from scripts.mcl_mini.store import MANIFEST, write_table

YES, NO, FIRST, SECOND = CHOICES = ("yes", "no", "the first", "the second")
# The first of each is used for validation and test; training blocks also use the others.
SAME = (
    "Are these two the same kind of thing?",
    "Are the first and the second of one kind?",
    "Is it the same kind of thing twice?",
)
WHICH = (
    "Is exactly one of the two {}, and which?",
    "Is only the first or only the second {}?",
    "Is just one of them {}, and which one?",
)
PICK = (
    "Which of the two is {}, the first or the second?",
    "Is the first or the second {}?",
    "Which one is {}?",
)
# What is called otherwise in some modality, or more closely.
KINDS = {
    "a person walking": "a person",
    "a person carrying": "a person",
    "a person working": "a person",
    "a person fighting": "a person",
    "a voice": "a person",
    "a bird": "an animal",
    "a fish": "an animal",
    "an insect": "an animal",
    "a flower": "a plant",
    "a tree": "a plant",
}


@dataclass(frozen=True)
class Pairing:
    """Two modalities, the kinds of thing that both show, and how many blocks each split gets."""

    task: str
    modalities: tuple[str, str]
    kinds: tuple[str, ...]
    blocks: Mapping[str, int]

    @property
    def choices(self) -> Sequence[str]:
        """Every answer of the task."""
        return CHOICES[2:] if self.task == "pick" else CHOICES


SHAPES, PICTURES, SOUNDS = ("depth", "point_cloud"), ("image", "video"), ("video", "audio")
FURNITURE, OUTDOORS = tuple(NAMES), ("an animal", "a building", "a plant")
PAIRINGS = (
    Pairing("qa", SHAPES, FURNITURE, {"train": 170, "validation": 34, "test": 100}),
    Pairing("qa", PICTURES, OUTDOORS, {"train": 80, "validation": 16, "test": 50}),
    Pairing("pick", SHAPES, FURNITURE, {"train": 68, "validation": 14, "test": 50}),
    Pairing("pick", PICTURES, OUTDOORS, {"train": 32, "validation": 6, "test": 25}),
    Pairing(
        "heard", SOUNDS, ("an animal", "a person"), {"train": 60, "validation": 10, "test": 40}
    ),
)


@dataclass(frozen=True)
class Shown:
    """A medium and the thing that it shows."""

    modality: str
    key: str
    kind: str
    thing: str
    credit: Credit


@dataclass(frozen=True)
class Twins:
    """Media of one kind in both modalities; `name` is that of a thing among them."""

    kind: str
    name: str
    media: tuple[Sequence[Shown], Sequence[Shown]]

    def views(self, number: int) -> tuple[Shown, Shown]:
        """One medium of each modality, others for another number as long as there are any."""
        first, second = (media[number % len(media)] for media in self.media)
        return first, second


Couple = tuple[Twins, Twins]


@dataclass(frozen=True)
class Asked:
    """One sample of a block: which of its two kinds each modality shows, and the question.

    `kind` is what is asked for; None if the two are compared.
    """

    shown: tuple[int, int]
    text: str
    kind: str | None


def kind_of(answer: str) -> str:
    """The kind of thing that an answer or the caption of a stamp names.

    Example:
        >>> kind_of("a photo of a bird: a robin")
        'an animal'
    """
    name = answer.partition(":")[0]
    name = name.removeprefix("a photo of ").removeprefix("a drawing of ")
    return KINDS.get(name, name)


def media(data: Path, modality: str, split: str) -> list[Shown]:
    """The media of a split whose kind a question or the caption of a stamp tells."""
    found = {}
    for task in ("caption", "qa"):
        for row in rows(data / modality / f"{task}-{split}.parquet"):
            if task == "qa" or ":" in answer_of(row):
                credit = Credit(row["source"], row["licence"], row["attribution"])
                kind = kind_of(answer_of(row))
                found[key_of(row)] = Shown(modality, key_of(row), kind, row["object"], credit)
    return list(found.values())


def _shelves(found: Sequence[Shown], kinds: Sequence[str]) -> dict[str, list[list[Shown]]]:
    """Kind -> things, each a list of its media; all in the order of a hash."""
    shelves: dict[str, dict[str, list[Shown]]] = {kind: defaultdict(list) for kind in kinds}
    for shown in sorted(found, key=lambda shown: digest(shown.key)):
        if shown.kind in shelves:
            shelves[shown.kind][shown.thing].append(shown)
    return {
        kind: [things[name] for name in sorted(things, key=digest)]
        for kind, things in shelves.items()
    }


def num_twins(things: Mapping[str, int]) -> dict[str, int]:
    """How many twins each kind gives, so that all twins can be coupled with those of other kinds.

    Args:
        things: Kind -> number of things in the modality that has fewer.
    """
    numbers = dict(things)
    while sum(numbers.values()) % 2 or 2 * max(numbers.values()) > sum(numbers.values()):
        numbers[max(numbers, key=lambda kind: numbers[kind])] -= 1
    return numbers


def _in_turn(things: Sequence[Sequence[Shown]]) -> list[Shown]:
    """The media of some things, one of each thing, then the next of each."""
    return [shown for views in zip_longest(*things) for shown in views if shown]


def all_twins(data: Path, pairing: Pairing, split: str) -> list[Twins]:
    """All things of a split, shared out to twins; every thing is in one."""
    first, second = (
        _shelves(media(data, modality, split), pairing.kinds) for modality in pairing.modalities
    )
    numbers = num_twins({kind: min(len(first[kind]), len(second[kind])) for kind in pairing.kinds})
    return [
        Twins(
            kind,
            first[kind][turn][0].thing,
            (_in_turn(first[kind][turn::number]), _in_turn(second[kind][turn::number])),
        )
        for kind, number in numbers.items()
        for turn in range(number)
    ]


def couples(twins: Sequence[Twins], seed: str) -> list[Couple]:
    """Twins of different kinds, two and two; other ones for another seed."""
    order = sorted(twins, key=lambda t: (digest(f"{seed}/{t.kind}"), digest(f"{seed}/{t.name}")))
    half = len(order) // 2
    # No kind has more than half of all twins, so that one half further on there is another kind.
    return list(zip(order[:half], order[half:], strict=True))


def answer_about(first: str, second: str, asked: str | None) -> str:
    """The answer about two kinds of thing; `asked` is one asked for, None if they are compared."""
    if asked is None:
        return YES if first == second else NO
    if (first == asked) == (second == asked):
        return NO
    return FIRST if first == asked else SECOND


def asked_kind(question: str) -> str | None:
    """The kind that a question asks for; None if it compares.

    Example:
        >>> asked_kind("Which of the two is a chair, the first or the second?")
        'a chair'
    """
    kinds = dict.fromkeys(kind for pairing in PAIRINGS for kind in pairing.kinds)
    templates = (*WHICH, *PICK)
    found = (kind for kind in kinds if question in {text.format(kind) for text in templates})
    return next(found, None)


def _row(name: str, shown: Sequence[Shown], asked: Asked, choices: Sequence[str]) -> Row:
    """One manifest row but for the couple of its things; where two licences meet, both hold."""
    parts = [
        {"type": medium.modality, "path": f"../{medium.modality}/media.parquet#{medium.key}"}
        for medium in shown
    ]
    answer = answer_about(shown[0].kind, shown[1].kind, asked.kind)
    credits = [medium.credit for medium in shown]
    return {
        "id": name,
        "messages": [
            {"role": "user", "content": [*parts, {"type": "text", "text": asked.text}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        "references": [answer],
        "choices": list(choices),
        "source": "; ".join(credit.source for credit in credits),
        "licence": " AND ".join(sorted({credit.licence for credit in credits})),
        "attribution": "; ".join(dict.fromkeys(credit.attribution for credit in credits)),
    }


def _compared(couple: Couple, chance: int, is_same: bool, wording: int) -> list[Asked]:
    """All four combinations with one question: if they are the same, or if one alone is a kind."""
    kind = None if is_same else couple[chance % 2].kind
    text = SAME[wording] if kind is None else WHICH[wording].format(kind)
    return [Asked(shown, text, kind) for shown in ((0, 0), (0, 1), (1, 0), (1, 1))]


def _picked(couple: Couple, wording: int) -> list[Asked]:
    """Both combinations of unlike things, each asked for either kind."""
    return [
        Asked(shown, PICK[wording].format(twins.kind), twins.kind)
        for shown in ((0, 1), (1, 0))
        for twins in couple
    ]


def _rounds(twins: Sequence[Twins], name: str, split: str) -> Iterator[tuple[int, int, Couple]]:
    """Couples without end, with the number of the round and that in the round."""
    for turn in count():
        seed = turn if split == "train" else 0
        for number, couple in enumerate(couples(twins, f"{name}/{seed}")):
            yield turn, number, couple


def samples(data: Path, pairing: Pairing, split: str) -> Iterator[Row]:
    """The manifest rows of a pairing; every couple gives a block in every round."""
    name = f"{JOINT}-{pairing.task}-{'-'.join(pairing.modalities)}-{split}"
    endless = _rounds(all_twins(data, pairing, split), name, split)
    for made, (turn, number, couple) in enumerate(islice(endless, pairing.blocks[split])):
        block = f"{name}-{made:03d}"
        chance = digest(block)
        wording = chance // 2 % len(SAME) if split == "train" else 0
        if pairing.task == "pick":
            asked = _picked(couple, wording)
        else:
            asked = _compared(couple, chance, (number + turn) % 2 == 0, wording)
        views = [twins.views(turn) for twins in couple]
        for position, one in enumerate(asked):
            shown = [views[one.shown[0]][0], views[one.shown[1]][1]]
            # Every other two blocks, media of the second modality come first.
            ordered = shown[::-1] if made // 2 % 2 else shown
            row = _row(f"{block}-{position}", ordered, one, pairing.choices)
            yield row | {"object": " and ".join(twins.name for twins in couple)}


def write(data: Path) -> None:
    """Writes the manifests of all pairings, in the order of a hash, and the checksums."""
    (data / JOINT).mkdir(exist_ok=True)
    for task, split in product(dict.fromkeys(pairing.task for pairing in PAIRINGS), SPLITS):
        made = [
            row
            for pairing in PAIRINGS
            if pairing.task == task
            for row in samples(data, pairing, split)
        ]
        made.sort(key=lambda row: digest(row["id"]))
        write_table(made, MANIFEST, data / JOINT / f"{task}-{split}.parquet")
    sums = checksums(data)
    (data / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Writes the joint manifests beside the modalities."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    write(parser.parse_args().data)


if __name__ == "__main__":
    main()
