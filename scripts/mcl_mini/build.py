"""Builds MCL-mini from a directory of downloaded packages.

    python -m scripts.mcl_mini.build --packages DIR --out data/mcl-mini

The packages are pinned in sources.json; one that is missing is named with the command that fetches
it. The same packages and library versions give the same bytes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.mcl_mini import audio, depth, image, joint, points, video
from scripts.mcl_mini.furniture import shared_out
from scripts.mcl_mini.items import Modality
from scripts.mcl_mini.sources import Packages, SourceError
from scripts.mcl_mini.store import write

BUILDERS: dict[str, Callable[[Packages], Modality]] = {
    "image": image.modality,
    "video": video.modality,
    "audio": audio.modality,
    "depth": lambda packages: depth.modality(shared_out(packages)["depth"]),
    "point_cloud": lambda packages: points.modality(shared_out(packages)["point_cloud"]),
}


def main() -> None:
    """Builds all modalities, or those named, and the joint questions over all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True, help="directory of the downloads")
    parser.add_argument("--out", type=Path, required=True, help="where to write")
    parser.add_argument("--only", nargs="*", choices=list(BUILDERS), default=list(BUILDERS))
    arguments = parser.parse_args()
    packages = Packages(arguments.packages)
    try:
        for name in arguments.only:
            modality = BUILDERS[name](packages)
            write(modality, arguments.out)
            size = sum(len(item.data) for item in modality.items)
            print(f"{name}: {len(modality.items)} media, {size / 1e6:.1f} MB")
        joint.write(arguments.out)
    except SourceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
