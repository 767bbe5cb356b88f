"""Video: short animations, with questions on what is shown and what it does."""

import io
import re
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from PIL import Image

from scripts.mcl_mini.items import Credit, Item, Modality, without_copies
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import Groups, assign, digest
from scripts.mcl_mini.sprites import DIRECTIONS, PACKAGE, Animation, animations

SIZE = 80
FRAMES = 8
MOST = {"train": 200, "validation": 24, "test": 140}
FEWEST = {"train": 80, "validation": 10, "test": 50}
BACKGROUNDS = ((120, 150, 90), (190, 175, 130), (150, 165, 185), (225, 225, 220))
ALIKE = 14.0
LABELS = (
    "a person walking",
    "a person carrying",
    "a person working",
    "a person fighting",
    "an animal",
    "a building",
    "a plant",
    "a boat",
)
ONE_FIGURE = ("amazons", "frisians")
SAME_TRADE = {
    "armorsmith": "smith",
    "blackroot_farmer": "farmer",
    "blacksmith": "smith",
    "blacksmith_master": "smith",
    "brewer_master": "brewer",
    "lumberjack": "woodcutter",
    "miner_chief": "miner",
    "miner_master": "miner",
    "ranger": "forester",
    "shipwright": "builder",
    "stonemason": "stonecutter",
    "toolsmith": "smith",
    "weaponsmith": "smith",
}
# The large groups and the few who fight are placed by hand.
PLACED = {
    "people of the frisians": "train",
    "people of the amazons": "train",
    "soldier of the barbarians": "test",
    "soldier of the atlanteans": "validation",
    "soldier of the empire": "test",
}
CREDIT = ("GPL-2.0-or-later", "Widelands Development Team")


def _label(animation: Animation) -> str:
    """The answer: the subject, and for people also what they do.

    People who stand still are only captioned: between two steps, those who walk look the same.
    """
    if animation.kind != "a person":
        return animation.kind
    return "" if animation.action == "standing" else f"{animation.kind} {animation.action}"


def _subject(animation: Animation) -> str:
    """Sprites that are drawn alike, found by looking at all of them.

    All people of two tribes are one figure in other clothes. In the other tribes, people of one
    trade are often one figure, soldiers are not. Growth stages of a plant, kinds of one animal and
    depths of a mine are one subject.
    """
    folder = animation.folder
    name = folder.rpartition("/")[2]
    if animation.kind == "a plant":
        return folder.rpartition("/")[0]
    if animation.kind == "an animal":
        return f"animal {name}"
    if animation.kind == "a person":
        tribe = folder.split("/")[2]
        if tribe in ONE_FIGURE:
            return f"people of the {tribe}"
        trade = SAME_TRADE.get(name, name)
        return f"soldier of the {tribe}" if trade == "soldier" else f"worker {trade}"
    return re.sub(r"_(master|chief|deeper|deep|small|large|high)\b", "", folder)


def _thumbnail(animation: Animation) -> np.ndarray:
    """A small picture of the first frame on grey, to tell copies."""
    picture = _on_plain(animation.pictures(1, 0), (128, 128, 128))[0]
    return np.asarray(picture.resize((24, 24)), dtype=np.float32)


def _subjects(found: list[Animation]) -> dict[str, str]:
    """Folder -> group: subjects with the same pictures, in any tribe, are one."""
    groups = Groups({_subject(animation) for animation in found})
    by_name = defaultdict(list)
    for animation in found:
        if animation.name in ("walk", "idle", "working", "build"):
            place = (animation.kind, animation.name, animation.direction)
            by_name[place].append((_subject(animation), _thumbnail(animation)))
    for pictures in by_name.values():
        for index, (left, first) in enumerate(pictures):
            for right, second in pictures[index + 1 :]:
                if np.abs(first - second).mean() < ALIKE / 4:
                    groups.join(left, right)
    return {animation.folder: groups.find(_subject(animation)) for animation in found}


def _on_plain(pictures: list[Image.Image], colour: tuple[int, int, int]) -> list[Image.Image]:
    """Frames cut to what moves in any of them, made square on a plain colour and scaled."""
    boxes = [box for picture in pictures if (box := picture.getchannel("A").getbbox())]
    if not boxes:
        boxes = [(0, 0, *pictures[0].size)]
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[2] for b in boxes), max(b[3] for b in boxes)
    side = max(right - left, bottom - top)
    margin = max(1, side // 12)
    result = []
    for picture in pictures:
        square = Image.new("RGB", (side + 2 * margin,) * 2, colour)
        cut = picture.crop((left, top, right, bottom))
        corner = (margin + (side - cut.width) // 2, margin + (side - cut.height) // 2)
        square.paste(cut, corner, cut)
        result.append(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    return result


def _webp(frames: list[Image.Image]) -> bytes:
    """An animated WebP of ten frames a second."""
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=100,
        loop=0,
        quality=70,
        method=4,
        kmax=FRAMES,
    )
    return buffer.getvalue()


def _captions(animation: Animation) -> list[str]:
    """Captions from the subject, the action and the direction."""
    where = DIRECTIONS.get(animation.direction, "")
    verb = {
        "walking": "walking",
        "carrying": "carrying a load",
        "working": "working",
        "standing": "standing still",
        "fighting": "fighting",
        "shown": {
            "a building": {"build": "under construction", "working": "in use"}.get(
                animation.name, "standing idle"
            ),
            "a plant": "swaying in the wind",
            "a boat": "sailing" if where else "resting on the water",
        }.get(animation.kind, ""),
    }[animation.action]
    full = f"{animation.kind} {verb} {where}".strip()
    plain = f"{animation.kind} {verb}"
    return list(
        dict.fromkeys([full, f"{animation.kind} is {verb} {where}".strip(), f"{plain} in a game"])
    )


def _excerpts(chosen: list[Animation], fewest: int) -> Iterable[tuple[Animation, int]]:
    """Every animation once, then again from other starts until there are enough."""
    rounds = -(-fewest // max(1, len(chosen)))
    for number in range(max(1, min(rounds, 3))):
        yield from ((animation, number) for animation in chosen)


def _splits(found: list[Animation], group_of: dict[str, str]) -> dict[str, str]:
    """Group -> split. Groups that work are few, so they are shared out among themselves."""
    actions = defaultdict(set)
    for animation in found:
        actions[group_of[animation.folder]].add(f"{animation.kind} {animation.action}")
    classes = {
        group: "a person working" if "a person working" in seen else max(seen)
        for group, seen in actions.items()
        if group not in PLACED
    }
    return assign(classes) | PLACED


def _item(animation: Animation, number: int, thing: str, split: str) -> Item:
    """One excerpt of an animation."""
    key = f"{animation.key}-{number}"
    colour = BACKGROUNDS[digest(key) % len(BACKGROUNDS)]
    frames = _on_plain(animation.pictures(FRAMES, number * animation.frames // 3), colour)
    return Item(
        key=key,
        data=_webp(frames),
        thing=thing,
        split=split,
        credit=Credit(f"{PACKAGE} {animation.folder} {animation.name}", *CREDIT),
        label=_label(animation),
        captions=_captions(animation),
    )


def modality(packages: Packages) -> Modality:
    """All video samples."""
    found = list(animations(packages))
    group_of = _subjects(found)
    splits = _splits(found, group_of)
    shelves = defaultdict(list)
    for animation in found:
        split = splits[group_of[animation.folder]]
        shelves[animation.kind, animation.action, split].append(animation)
    items = []
    for (_, _, split), shelf in sorted(shelves.items()):
        chosen = sorted(shelf, key=lambda animation: digest(animation.key))[: MOST[split]]
        for animation, number in _excerpts(chosen, FEWEST[split]):
            items.append(_item(animation, number, group_of[animation.folder], split))
    return Modality(
        name="video",
        questions=("What does the video show?", "What is happening?", "What is seen here?"),
        prompts=("Describe the video.", "What happens in the video?"),
        items=without_copies(items),
        choices=LABELS,
    )
