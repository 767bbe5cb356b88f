"""Writes LICENSES.md: what each part of the benchmark may be used for and whom to name.

    python -m scripts.mcl_mini.attributions --data data/mcl-mini

Run it after a build; the tables come from the columns of the media stores.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from scripts.mcl_mini.check import MODALITIES
from scripts.mcl_mini.sources import pinned

TEXTS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-3.0-US": "https://creativecommons.org/licenses/by-sa/3.0/us/",
    "GPL-2.0-only": "LICENSES/GPL-2.0.txt",
    "GPL-2.0-or-later": "LICENSES/GPL-2.0.txt",
    "MIT": "LICENSES/MIT.txt",
}
CHANGES = {
    "image": "cropped to what is visible, scaled, put on white, saved as WebP; clothes unchanged",
    "video": "frames cut out of sprite sheets, scaled, put on a plain colour, saved as WebP",
    "audio": "mixed to one channel, cut to two seconds, resampled, scaled, saved as Ogg Opus",
    "depth": "meshes sampled and rendered as maps of distances",
    "point_cloud": "meshes sampled, turned and rounded",
}
HEAD = """# Licences of MCL-mini

Every medium carries its source, its licence (an SPDX identifier) and whom to name in the columns
`source`, `licence` and `attribution` of `media.parquet`. The parts keep their licences: the
benchmark is a collection, not one work under one licence. Questions, answers and captions written
for it are under CC0-1.0, except captions that quote the names of stamps (GPL-2.0-only).

The project's own licence does not cover this folder. If you need material without copyleft, filter
on `licence`.
"""


def _by_licence(data: Path) -> dict[tuple[str, str, str], set[str]]:
    """Modality, licence and package -> everyone to name."""
    found = defaultdict(set)
    columns = ["source", "licence", "attribution"]
    for name in MODALITIES:
        for row in pq.read_table(data / name / "media.parquet", columns=columns).to_pylist():
            package = row["source"].split(" ")[0]
            found[name, row["licence"], package].add(row["attribution"])
    return found


def main() -> None:
    """Writes the page beside the data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    lines = [HEAD, "## Texts\n"]
    lines += [f"- {name}: {place}" for name, place in TEXTS.items()]
    lines += ["\n## Changes made\n"]
    lines += [f"- {name}: {text}" for name, text in CHANGES.items()]
    lines += ["\n## Origins\n"]
    lines += [f"- {s.name} {s.version}: {s.homepage}" for s in pinned().values()]
    lines += ["\n## Whom to name\n"]
    for (name, licence, package), people in sorted(_by_licence(data).items()):
        lines.append(f"- **{name}**, {licence}, {package}: {', '.join(sorted(people))}")
    (data / "LICENSES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
