"""Captioned drawings and photos: the stamps of a drawing program for children."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scripts.mcl_mini.items import Credit, Item
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import assign

PACKAGE = "tuxpaint-stamps-default"
FOLDER = "usr/share/tuxpaint/stamps"
SIZE = 128
FRAMINGS = ((0.94, 0.5, 0.5), (0.68, 0.3, 0.6))

# The folder says what is shown; the first prefix that fits counts. Folders that are not named
# (signs, chess pieces, jokes, scenes) mix too many things to be called by one word.
KINDS = {
    "animals/birds": "a bird",
    "animals/fish": "a fish",
    "animals/insects": "an insect",
    "animals": "an animal",
    "clothes": "clothing",
    "food/fruit": "a fruit",
    "food/vegetables": "a vegetable",
    "food": "food",
    "hobbies/music": "an instrument",
    "household/dishes": "kitchenware",
    "household/tools": "a tool",
    "household": "a household object",
    "plants/flowers": "a flower",
    "plants/trees": "a tree",
    "plants": "a plant",
    "space": "space",
    "sports": "sports",
    "symbols/alphabets/english": "a letter",
    "town/flags": "a flag",
    "town/houses": "a building",
    "town/monuments": "a monument",
    "vehicles": "a vehicle",
}
# Names filed under a kind that they are not, found by reading all captions.
WRONG_KIND = {
    "A couple of wings.": "an insect",
    "A spiny lobster, from the Hawaiian islands.": "an animal",
    "A shrimp.": "an animal",
    "A brown slug.": "an animal",
    "A happy snail.": "an animal",
    "A woodlouse.": "an animal",
    "A medieval city.": "a building",
    "Two city houses.": "a building",
    "A wheel! Put the brake calipers toward the rear.": "",
    "A tractor wheel.": "",
    "A train sign.": "",
    "Police car emblems to put on the sedan.": "",
    "A mushroom.": "a vegetable",
}
_NAME = re.compile(r"^(An?|Two|Some|The letter) [\w\-\u2019\u201c\u201d ]+\.$")
LONGEST = 6
PLAIN = str.maketrans({"\u201c": "", "\u201d": "", "\u2019": "'"})


@dataclass(frozen=True)
class Stamp:
    """One stamp: what the folder calls it, what its caption calls it, and how it was made."""

    key: str
    path: Path
    kind: str
    name: str
    is_drawn: bool

    @property
    def thing(self) -> str:
        """What must stay in one split: all stamps of one name, but each letter by itself."""
        return self.key if self.kind == "a letter" else self.name


def _kind(folder: str, caption: str) -> str:
    """The coarse kind of a stamp, empty if it has none."""
    if caption in WRONG_KIND:
        return WRONG_KIND[caption]
    return next((kind for prefix, kind in KINDS.items() if folder.startswith(prefix)), "")


def stamps(packages: Packages) -> Iterator[Stamp]:
    """All stamps whose caption is a plain name of at most six words."""
    root = packages.root(PACKAGE) / FOLDER
    for path in sorted(root.rglob("*.png")):
        text = path.with_suffix(".txt")
        if not text.exists():
            continue
        caption = text.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
        folder = path.parent.relative_to(root).as_posix()
        kind = _kind(folder, caption)
        if not kind or not _NAME.match(caption) or len(caption.split()) > LONGEST:
            continue
        name = caption.rstrip(".").translate(PLAIN)
        name = name if kind == "a letter" else name.lower()
        is_drawn = any(word in folder for word in ("cartoon", "symbols", "flags"))
        key = re.sub(r"\W+", "-", f"{folder}/{path.stem}")
        # File systems may ignore case, and so do some readers: letters say which case they have.
        if kind == "a letter":
            case = "uppercase" if "uppercase" in folder else "lowercase"
            name = f"the {case} {name.removeprefix('The ').lower()}"
        yield Stamp(key, path, kind, name[0].lower() + name[1:], is_drawn)


def captions(stamp: Stamp) -> list[str]:
    """Reference captions; the first is the one to learn."""
    medium = "drawing" if stamp.is_drawn else "photo"
    kind = stamp.kind
    return [
        f"a {medium} of {kind}: {stamp.name}",
        f"a {medium} of {stamp.name}",
        f"{kind}: {stamp.name}",
        stamp.name,
    ]


def framed(path: Path, share: float, across: float, down: float) -> bytes:
    """The stamp on a white square, taking a share of its side, as WebP.

    Args:
        path: PNG with transparency.
        share: Longest side of the stamp as a fraction of the square.
        across: Where the free space goes: 0 puts the stamp at the left, 1 at the right.
        down: The same for top and bottom.
    """
    with Image.open(path) as opened:
        stamp = opened.convert("RGBA")
    box = stamp.getchannel("A").getbbox()
    stamp = stamp.crop(box) if box else stamp
    scale = share * SIZE / max(stamp.size)
    size = (max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale)))
    stamp = stamp.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIZE, SIZE), "white")
    corner = (round((SIZE - size[0]) * across), round((SIZE - size[1]) * down))
    square.paste(stamp, corner, stamp)
    buffer = io.BytesIO()
    square.save(buffer, format="WEBP", quality=80, method=6)
    return buffer.getvalue()


def stamp_items(packages: Packages) -> list[Item]:
    """Caption samples, two framings of each stamp."""
    found = list(stamps(packages))
    splits = assign({stamp.thing: stamp.kind for stamp in found})
    items = []
    for stamp in found:
        credit = Credit(f"{PACKAGE} {stamp.key}", "GPL-2.0-only", "Tux Paint contributors")
        for number, framing in enumerate(FRAMINGS):
            data = framed(stamp.path, *framing)
            items.append(
                Item(
                    key=f"{stamp.key}-{number}",
                    data=data,
                    thing=stamp.thing,
                    split=splits[stamp.thing],
                    credit=credit,
                    captions=captions(stamp),
                )
            )
    return items
