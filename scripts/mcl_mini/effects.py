"""Recorded voices, animals and weapons."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.mcl_mini.items import Credit
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import digest

VOICES = "usr/share/ktuberling/sounds"
STAMPS = "usr/share/tuxpaint/stamps/animals"
GAME = "usr/share/games/widelands/data/sound"
WESNOTH = "usr/share/games/wesnoth/1.16/data/core/sounds"
# Each language counts as one voice, whoever speaks; the variants of Serbian are left out.
WORDS_PER_VOICE = 20

# Sounds of the games, by the beginning of the file name, read one by one.
GAME_ANIMALS = (
    "animals/",
    "farm/ox",
    "farm/sheep",
    "farm/horse",
    "farm/donkey",
    "farm/farm_animal",
)
BEASTS = ("wolf-", "horse-die", "horse-hit", "gryphon-", "bat-hit", "drake-", "tusker-d", "hiss")
WEAPONS = (
    "axe",
    "bow",
    "club",
    "crossbow",
    "dagger",
    "dart",
    "flail",
    "gunshot",
    "hatchet",
    "knife",
    "mace",
    "sling",
    "spear",
    "staff",
    "sword",
    "throwing-knife",
    "thunderstick",
)


@dataclass(frozen=True)
class Effect:
    """One recording; `group` names what must not cross splits."""

    key: str
    path: Path
    label: str
    group: str
    credit: Credit


def _voices(packages: Packages) -> Iterator[Effect]:
    """Spoken names of things, some words of every language."""
    package = "ktuberling-data"
    for folder in sorted((packages.root(package) / VOICES).iterdir()):
        language = folder.name.partition("@")[0]
        files = sorted(folder.glob("*.ogg"), key=lambda path: digest(f"{folder.name}/{path.name}"))
        for path in [] if "@" in folder.name else files[:WORDS_PER_VOICE]:
            credit = Credit(
                f"{package} {language}/{path.stem}", "GPL-2.0-or-later", "KTuberling contributors"
            )
            key = f"voice-{language}-{path.stem}"
            yield Effect(key, path, "a voice", f"voice {language}", credit)


def _animals(packages: Packages) -> Iterator[Effect]:
    """Calls of animals: one recording a species in the stamps, several in the games."""
    package = "tuxpaint-stamps-default"
    root = packages.root(package) / STAMPS
    for path in sorted(root.rglob("*.ogg")):
        if "_desc" not in path.name:
            credit = Credit(
                f"{package} animals/{path.stem}", "GPL-2.0-only", "Tux Paint contributors"
            )
            key = f"stamp-{path.stem}"
            yield Effect(key, path, "an animal", f"animal {_species(path.stem)}", credit)
    root = packages.root("widelands-data") / GAME
    for path in sorted(root.rglob("*.ogg")):
        name = path.relative_to(root).as_posix()
        if name.startswith(GAME_ANIMALS):
            credit = Credit(
                f"widelands-data {name}", "GPL-2.0-or-later", "Widelands Development Team"
            )
            key = f"widelands-{path.stem}"
            yield Effect(key, path, "an animal", f"animal {_species(path.stem)}", credit)


def _species(stem: str) -> str:
    """The species in a file name, so that two recordings of one sound stay together."""
    return re.split(r"[-_\d]", stem)[0]


def _battle(packages: Packages) -> Iterator[Effect]:
    """Beasts and weapons of a strategy game; hits and misses of a weapon stay together."""
    root = packages.root("wesnoth-1.16-data") / WESNOTH
    for path in sorted([*root.glob("*.ogg"), *root.glob("*.wav")]):
        label = (
            "an animal"
            if path.name.startswith(BEASTS)
            else "a weapon"
            if path.name.startswith(WEAPONS)
            else ""
        )
        if label:
            credit = Credit(
                f"wesnoth-1.16-data {path.name}",
                "GPL-2.0-or-later",
                "Battle for Wesnoth contributors",
            )
            kind = "animal" if label == "an animal" else "weapon"
            key = f"wesnoth-{path.stem}-{path.suffix[1:]}"
            yield Effect(key, path, label, f"{kind} {_species(path.stem)}", credit)


def effects(packages: Packages) -> Iterator[Effect]:
    """All voices, animals and weapons."""
    yield from _voices(packages)
    yield from _animals(packages)
    yield from _battle(packages)
