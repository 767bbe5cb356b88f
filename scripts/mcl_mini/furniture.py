"""The furniture catalogue: pieces, their meshes as surface points, and who may show which piece."""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from scripts.mcl_mini.furniture_labels import label_of
from scripts.mcl_mini.items import Credit
from scripts.mcl_mini.sources import Packages
from scripts.mcl_mini.splits import Groups, assign, digest

PACKAGE = "sweethome3d-furniture"
FOLDER = "usr/share/sweethome3d/furniture"
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0",
    "Reallusion": "CC-BY-3.0",
    "Scopia": "CC-BY-3.0",
}
SURFACE_POINTS = 60_000
ALIKE = 0.85
CELLS = 20


@dataclass(frozen=True)
class Piece:
    """One piece of furniture with points spread evenly over its surface.

    Points are centred on the bounding box; y is up, +z is the front; the longest side is 1.
    """

    key: str
    name: str
    label: str
    credit: Credit
    points: Float[np.ndarray, "points 3"]
    group: str = ""

    @property
    def shape(self) -> str:
        """One word on the proportions of the bounding box."""
        width, height, depth = np.ptp(self.points, axis=0)
        widest = max(width, depth)
        if height > 1.3 * widest:
            return "tall"
        if height < 0.4 * widest:
            return "low"
        if width > 1.6 * depth:
            return "wide"
        if depth > 1.6 * width:
            return "deep"
        return "compact"


def _properties(text: str) -> dict[int, dict[str, str]]:
    """Entries of a catalogue file by number; escapes of Java properties files are resolved."""
    entries: dict[int, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        match = re.match(r"^(\w+)#(\d+)\s*=\s*(.*)$", line)
        if match:
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), match[3])
            entries[int(match[2])][match[1]] = value
    return entries


def parse_obj(text: str) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "faces 3"]]:
    """Vertices and triangles of a Wavefront OBJ file; polygons are cut into fans."""
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in text.splitlines():
        if line.startswith("v "):
            vertices.append([float(word) for word in line.split()[1:4]])
        elif line.startswith("f "):
            corners = [int(word.split("/")[0]) for word in line.split()[1:]]
            ids = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            faces.extend((ids[0], ids[k], ids[k + 1]) for k in range(1, len(ids) - 1))
    return np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)


def spread(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    count: int,
    seed: int,
) -> Float[np.ndarray, "points 3"]:
    """Points drawn evenly over the area of a mesh, centred and scaled to a longest side of 1."""
    rng = np.random.default_rng(seed)
    corner, left, right = (vertices[faces[:, k]] for k in range(3))
    area = np.nan_to_num(np.linalg.norm(np.cross(left - corner, right - corner), axis=1))
    edges = np.cumsum(area)
    chosen = np.searchsorted(edges, rng.random(count) * edges[-1])
    root, share = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (
        (1 - root) * corner[chosen]
        + root * (1 - share) * left[chosen]
        + root * share * right[chosen]
    )
    points -= (points.max(0) + points.min(0)) / 2
    return points / np.ptp(points, axis=0).max()


def pieces(packages: Packages) -> Iterator[Piece]:
    """All labelled pieces of the catalogue."""
    folder = packages.root(PACKAGE) / FOLDER
    for collection, licence in LICENCES.items():
        with zipfile.ZipFile(folder / f"{collection}.sh3f") as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
            for number, entry in sorted(_properties(text).items()):
                label = label_of(entry["name"])
                if label is None:
                    continue
                key = f"{collection.lower()}-{number:03d}"
                mesh = parse_obj(archive.read(entry["model"].lstrip("/")).decode("latin-1"))
                credit = Credit(
                    source=f"{PACKAGE} {collection} #{number} {entry['name']}",
                    licence=licence,
                    attribution=entry.get("creator", collection),
                )
                points = spread(*mesh, SURFACE_POINTS, digest(key))
                yield Piece(key, entry["name"], label, credit, points)


def _occupied(points: Float[np.ndarray, "points 3"]) -> set[int]:
    """Cells of the bounding box, cut into a grid along each side, that hold surface."""
    low, size = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-6)
    cell = np.minimum(((points - low) / size * CELLS).astype(int), CELLS - 1)
    return set((cell @ np.array([1, CELLS, CELLS**2])).tolist())


def grouped(catalogue: list[Piece]) -> list[Piece]:
    """The same pieces, with copies (equal up to stretching along the axes) in one group."""
    groups = Groups(piece.key for piece in catalogue)
    cells = {piece.key: _occupied(piece.points) for piece in catalogue}
    by_label = defaultdict(list)
    for piece in catalogue:
        by_label[piece.label].append(piece.key)
    for keys in by_label.values():
        for index, left in enumerate(keys):
            for right in keys[index + 1 :]:
                both = len(cells[left] & cells[right])
                if both > ALIKE * len(cells[left] | cells[right]):
                    groups.join(left, right)
    return [replace(piece, group=groups.find(piece.key)) for piece in catalogue]


def shared_out(packages: Packages) -> dict[str, list[tuple[Piece, str]]]:
    """Which pieces are seen as depth and which as points, each with its split."""
    catalogue = grouped(list(pieces(packages)))
    labels = {piece.group: piece.label for piece in catalogue}
    halves = assign(labels, {"depth": 0.5, "point_cloud": 0.5})
    result = {}
    for half in ("depth", "point_cloud"):
        mine = {group: label for group, label in labels.items() if halves[group] == half}
        splits = assign(mine)
        result[half] = [(p, splits[p.group]) for p in catalogue if p.group in mine]
    return result
