"""Animations of a strategy game: what is shown, what it does and where it goes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scripts.mcl_mini.sources import Packages

PACKAGE = "widelands-data"
FOLDER = "usr/share/games/widelands/data"
DIRECTIONS = {
    "_e": "to the right",
    "_w": "to the left",
    "_ne": "up to the right",
    "_nw": "up to the left",
    "_se": "down to the right",
    "_sw": "down to the left",
}
ANIMALS = {"tapir", "horse", "ox", "donkey", "reindeer"}
WORK = {
    "dig", "fish", "fishing", "gather", "gathering", "hack", "hacking", "harvest", "harvesting",
    "plant", "planting", "planting_harvesting", "sawing", "water", "work",
}  # fmt: skip
# Left out after looking at all sheets: signs, ruins, fire, bare fields and ponds, fantasy plants.
NOT_SHOWN = re.compile(
    r"resi/|destroyed|pond/|shipconstruction|mushroom|cirrus|umbrella|twine|liana/|stink_tree"
    r"|field/(harvested|tiny)|reedfield/small"
)
_ENTRY = re.compile(r"(\w+)\s*=\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
FEWEST_FRAMES = 4


@dataclass(frozen=True)
class Animation:
    """One animation: a sprite sheet cut into rows and columns."""

    folder: str
    name: str
    direction: str
    sheet: Path
    frames: int
    columns: int
    rows: int
    kind: str
    action: str

    @property
    def key(self) -> str:
        """Unique name."""
        return re.sub(r"\W+", "-", f"{self.folder}-{self.name}{self.direction}")

    def pictures(self, count: int, start: int) -> list[Image.Image]:
        """Some frames, evenly spaced over the cycle, beginning with frame `start`."""
        with Image.open(self.sheet) as opened:
            sheet = opened.convert("RGBA")
        width, height = sheet.width // self.columns, sheet.height // self.rows
        count = min(count, self.frames)
        result = []
        for step in range(count):
            number = (start + step * self.frames // count) % self.frames
            left, top = number % self.columns * width, number // self.columns * height
            result.append(sheet.crop((left, top, left + width, top + height)))
        return result


def _kind(folder: str) -> str:
    """What a folder shows: one of the subjects the benchmark names, or nothing."""
    if NOT_SHOWN.search(folder):
        return ""
    if "/critters/" in f"/{folder}/" or folder.split("/")[-1] in ANIMALS:
        return "an animal"
    if folder.startswith("tribes/ships/") or folder.endswith("/ferry"):
        return "a boat"
    prefixes = {
        "tribes/workers/": "a person",
        "tribes/buildings/": "a building",
        "tribes/immovables/": "a plant",
        "world/immovables/trees/": "a plant",
    }
    return next((kind for start, kind in prefixes.items() if folder.startswith(start)), "")


def _action(kind: str, name: str) -> str:
    """What is done in an animation of a kind; empty if it cannot be said or told apart."""
    if kind in ("a building", "a plant", "a boat"):
        return "" if name in ("sinking", "walkload") else "shown"
    if name == "walk":
        return "walking"
    if name in ("idle", "eating"):
        return "standing"
    if kind == "an animal":
        return ""
    if name == "walkload":
        return "carrying"
    if re.search(r"(^|_)(atk|eva)_", name):
        return "fighting"
    return "working" if name in WORK else ""


def _block(text: str) -> str:
    """The inside of the braces that follow the word `spritesheets`."""
    start = text.find("{", text.find("spritesheets"))
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return text[start + 1 : position]
    return ""


def _sheet(folder: Path, base: str, direction: str) -> Path | None:
    """The sheet of an animation at the largest scale that is shipped."""
    for scale in ("_4", "_2", "_1", ""):
        path = folder / f"{base}{direction}{scale}.png"
        if path.exists():
            return path
    return None


def _in_file(path: Path, root: Path) -> Iterator[Animation]:
    """Animations declared in one file; a sheet used twice counts once."""
    text = path.read_text(encoding="utf-8", errors="replace")
    folder = path.parent.relative_to(root).as_posix()
    kind = _kind(folder)
    if "spritesheets" not in text or not kind:
        return
    used = set()
    for name, body in _ENTRY.findall(_block(text)):
        sizes = [re.search(rf"{word}\s*=\s*(\d+)", body) for word in ("frames", "columns", "rows")]
        action = _action(kind, name)
        if not action or None in sizes:
            continue
        frames, columns, rows = (int(match[1]) for match in sizes if match)
        other = re.search(r'basename\s*=\s*"([^"]+)"', body)
        below = re.search(r'directory\s*=\s*dirname\s*\.\.\s*"([^"]+)"', body)
        place = path.parent / below[1] if below else path.parent
        directions = DIRECTIONS if re.search(r"directional\s*=\s*true", body) else {"": ""}
        for direction in directions:
            sheet = _sheet(place, other[1] if other else name, direction)
            if sheet and sheet not in used and frames >= FEWEST_FRAMES:
                used.add(sheet)
                yield Animation(folder, name, direction, sheet, frames, columns, rows, kind, action)


def animations(packages: Packages) -> Iterator[Animation]:
    """All usable animations."""
    root = packages.root(PACKAGE) / FOLDER
    for path in sorted((root).rglob("init.lua")):
        yield from _in_file(path, root)
