"""Training sets with varied media: does it help a path to see more than the media there are?

    python -m scripts.mcl_mini.augmented --data data/mcl-mini/depth --variants 4 --out OUT

writes qa-train and caption-train with each sample as it is and with so many variants of its medium:
mirrored in half of the cases, turned by up to 10 degrees, cut to 75 to 100 % of its sides, brighter
or darker by up to 10 %, and with noise. What it brought: docs/log.md.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pathweave.data.manifest import Manifest, write_manifest
from pathweave.data.media_store import write_media_store

SETS = ("qa-train", "caption-train")


def varied(data: bytes, random: np.random.Generator) -> bytes:
    """Return a variant of a picture of depths, in which 0 is nothing."""
    picture: Image.Image = Image.open(io.BytesIO(data))
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = picture.rotate(random.uniform(-10, 10), Image.Resampling.BILINEAR)
    width, height = picture.size
    share = random.uniform(0.75, 1.0)
    left, top = random.uniform(0, 1 - share, size=2)
    box = (left * width, top * height, (left + share) * width, (top + share) * height)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    values = np.asarray(picture).astype(np.float32)
    noisy = values * random.uniform(0.9, 1.1) + 2 * random.normal(size=values.shape)
    whole = np.where(values > 0, noisy.clip(1, 255), 0).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(whole).save(stream, "PNG")
    return stream.getvalue()


def main() -> None:
    """Write the sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variants", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    media: dict[str, bytes] = {}
    for name in SETS:
        manifest = Manifest(given.data / f"{name}.parquet")
        rows = []
        for sample in manifest:
            [part] = [each for each in sample.prompt if not each.is_text]
            key = str(part.path).rpartition("#")[2]
            if key not in media:
                media[key] = manifest.read_media(part)
                for i in range(given.variants):
                    media[f"{key}-v{i}"] = varied(media[key], random)
            text = sample.model_dump_json(exclude_none=True)
            rows += [
                json.loads(text.replace(f'#{key}"', f'#{key}{end}"')) | {"id": f"{sample.id}{end}"}
                for end in ("", *(f"-v{i}" for i in range(given.variants)))
            ]
        write_manifest(given.out / f"{name}.parquet", rows)
    write_media_store(
        given.out / "media.parquet", [{"key": key, "bytes": data} for key, data in media.items()]
    )


if __name__ == "__main__":
    main()
