"""Images: photos of clothes to ask about, and captioned stamps and clothes to describe."""

import gzip
import io
from collections import Counter

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scripts.mcl_mini.items import Credit, Item, Modality
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.stamps import stamp_items

PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
LABELS = (
    "a t-shirt",
    "trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)
FAMILY = ("a top",) + ("clothing",) * 4 + ("a shoe", "a top", "a shoe", "an accessory", "a shoe")
# Per class: how many samples, and the first index among the pictures of that class.
PICKS = {"train": ("train", 200, 0), "validation": ("train", 20, 200), "test": ("t10k", 100, 0)}
CAPTIONED = {"train": 60, "validation": 6, "test": 30}
CREDIT_LICENCE = "MIT"
MAKER = "Zalando SE (Han Xiao, Kashif Rasul, Roland Vollgraf)"


def _idx(path: str, header: int) -> UInt8[np.ndarray, " bytes"]:
    """The payload of a gzipped IDX file."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8)[header:]


def _png(pixels: UInt8[np.ndarray, "28 28"]) -> bytes:
    """A grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _captions(pixels: UInt8[np.ndarray, "28 28"], label: int) -> list[str]:
    """Captions from the label and from how bright the cloth is."""
    brightness = pixels[pixels > 20].mean()
    tone = "light" if brightness > 165 else "dark" if brightness < 110 else "grey"
    article, _, noun = LABELS[label].partition(" ")
    toned = f"a {tone} {noun}" if noun else f"{tone} {article}"
    return [
        f"a photo of {FAMILY[label]}: {toned}",
        f"a photo of {toned}",
        f"{FAMILY[label]}: {LABELS[label]}",
        toned,
    ]


def _clothes(packages: Packages) -> list[Item]:
    """Photos of clothes, the same number of each class; some are captioned as well."""
    root = packages.root(PACKAGE) / FOLDER
    items = []
    for split, (part, count, start) in PICKS.items():
        pictures = _idx(f"{root}/{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _idx(f"{root}/{part}-labels-idx1-ubyte.gz", 8)
        seen: Counter[int] = Counter()
        for index, label in enumerate(labels.tolist()):
            seen[label] += 1
            rank = seen[label] - 1 - start
            if not 0 <= rank < count:
                continue
            name = f"{part}-{index:05d}"
            captions = _captions(pictures[index], label) if rank < CAPTIONED[split] else ()
            credit = Credit(f"{PACKAGE} {name}", CREDIT_LICENCE, MAKER)
            data = _png(pictures[index])
            key = f"clothes-{name}"
            items.append(Item(key, data, key, split, credit, LABELS[label], captions))
    return items


def modality(packages: Packages) -> Modality:
    """All image samples."""
    return Modality(
        name="image",
        questions=("What kind of clothing is this?", "What is this?", "What is shown?"),
        prompts=("Describe the image.", "What does the image show?"),
        items=_clothes(packages) + stamp_items(packages),
        choices=LABELS,
    )
