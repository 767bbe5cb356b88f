"""Draws one picture with samples of every class, to be looked at.

    python -m scripts.mcl_mini.contact_sheet --data data/mcl-mini --out sheet.png

Each row is a class of one modality: test samples as the encoder sees them, with the first caption
below. A clip shows its first frame, a sound its spectrogram (0 to 8 kHz, up to two seconds).
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from pathweave.data.manifest import Manifest
from pathweave.data.messages import Sample
from pathweave.decoders import build_decoder
from pathweave.encoders.media import Frames, Media, Waveform

TILE, TEXT, PER_CLASS = 96, 34, 5
DECODERS: dict[str, dict[str, Any]] = {
    "image": {"kind": "picture"},
    "video": {"kind": "clip", "frames": 4},
    "audio": {"kind": "sound", "rate": 16_000, "seconds": 2.0},
    "depth": {"kind": "range_map"},
    "point_cloud": {"kind": "points", "views": 1, "size": 96},
}


def _spectrogram(sound: Waveform) -> UInt8[np.ndarray, "bins frames"]:
    """Loudness over time and frequency, 60 dB from black to white, high notes on top."""
    windows = np.lib.stride_tricks.sliding_window_view(sound.samples, 512)[::256]
    power = np.abs(np.fft.rfft(windows * np.hanning(512), axis=1)) ** 2
    level = 10 * np.log10(power / power.max() + 1e-9)
    return (255 * (1 + level / 60).clip(0, 1)).astype(np.uint8).T[::-1].copy()


def _tile(medium: Media) -> Image.Image:
    """A medium as a small picture."""
    if isinstance(medium, Frames):
        return Image.fromarray(medium.pixels[0]).resize((TILE, TILE))
    assert isinstance(medium, Waveform)
    return Image.fromarray(_spectrogram(medium)).convert("RGB").resize((TILE, TILE))


def _captioned(folder: Path, split: str) -> dict[str, str]:
    """Path of a medium -> its first caption."""
    manifest = Manifest(folder / f"caption-{split}.parquet")
    return {str(sample.prompt[0].path): sample.answer for sample in manifest}


def _chosen(folder: Path) -> dict[str, list[Sample]]:
    """A few test samples of each class, of different things where there are enough."""
    shelves: dict[str, list[Sample]] = defaultdict(list)
    later: dict[str, list[Sample]] = defaultdict(list)
    for sample in Manifest(folder / "qa-test.parquet"):
        shelf = shelves[sample.answer]
        is_new = sample.object not in {other.object for other in shelf}
        (shelf if is_new else later[sample.answer]).append(sample)
    for label, shelf in shelves.items():
        shelf += later[label]
    if folder.name == "image":
        shelves["captions"] = list(Manifest(folder / "caption-test.parquet"))
        shelves["more captions"] = shelves["captions"][PER_CLASS:]
    return shelves


def _wrapped(text: str, width: int = 18) -> str:
    """Three lines of a caption."""
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines[:3])


def _block(folder: Path) -> Image.Image:
    """All rows of one modality."""
    decoder = build_decoder(**DECODERS[folder.name])
    captions = _captioned(folder, "test")
    shelves = _chosen(folder)
    height = TILE + TEXT
    block = Image.new("RGB", (PER_CLASS * (TILE + 4), height * len(shelves) + 20), "white")
    draw, font = ImageDraw.Draw(block), ImageFont.load_default(9)
    draw.text((2, 2), folder.name, fill="black", font=ImageFont.load_default(14))
    manifest = Manifest(folder / "qa-test.parquet")
    for row, (label, shelf) in enumerate(sorted(shelves.items())):
        for column, sample in enumerate(shelf[:PER_CLASS]):
            part = sample.prompt[0]
            corner = (column * (TILE + 4), 20 + row * height)
            block.paste(_tile(decoder(manifest.read_media(part), sample.id)), corner)
            text = _wrapped(captions.get(str(part.path), label))
            place = (corner[0] + 1, corner[1] + TILE)
            draw.multiline_text(place, text, fill="black", font=font, spacing=1)
    return block


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    blocks = [_block(arguments.data / name) for name in DECODERS]
    size = (sum(b.width + 12 for b in blocks), max(b.height for b in blocks))
    sheet = Image.new("RGB", size, "white")
    left = 0
    for block in blocks:
        sheet.paste(block, (left, 0))
        left += block.width + 12
    sheet.quantize(128).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {size[0]} x {size[1]}")


if __name__ == "__main__":
    main()
