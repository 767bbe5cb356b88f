"""Point clouds: other furniture than in the depth maps, 1,024 surface points, turned about y."""

import io

import numpy as np
from jaxtyping import Float

from scripts.mcl_mini.depth import views
from scripts.mcl_mini.furniture import Piece
from scripts.mcl_mini.furniture_labels import NAMES, WITH_FRONT
from scripts.mcl_mini.items import Item, Modality
from scripts.mcl_mini.splits import digest

POINTS = 1024
SAMPLES = {"train": 1200, "validation": 140, "test": 600}
FACING = ("to the front", "to the right", "to the back", "to the left")


def _turned(
    points: Float[np.ndarray, "points 3"], yaw: float, rng: np.random.Generator
) -> Float[np.ndarray, "sampled 3"]:
    """Some of the points, turned about the vertical axis; yaw pi/2 brings the front to +x."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    chosen = points[rng.choice(len(points), POINTS, replace=False)]
    turned = chosen @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T
    cells = np.floor(turned * 8)
    return turned[np.lexsort((turned[:, 1], cells[:, 2], cells[:, 0], cells[:, 1]))]


def _npy(points: Float[np.ndarray, "points 3"]) -> bytes:
    """Half-precision array file; coordinates are rounded to 1/512 of the longest side."""
    buffer = io.BytesIO()
    np.save(buffer, (np.rint(points * 512) / 512).astype(np.float16))
    return buffer.getvalue()


def _captions(piece: Piece, yaw: float) -> list[str]:
    """Captions from what the points show: the class, its proportions and where it faces."""
    noun = piece.label.split(" ", 1)[1]
    pose = "standing upright"
    if piece.label in WITH_FRONT:
        pose = f"facing {FACING[round(yaw / (np.pi / 2)) % 4]}"
    return [
        f"a {piece.shape} {noun} {pose}",
        f"a {noun}, {piece.shape}, {pose}",
        f"points on a {piece.shape} {noun} {pose}",
    ]


def modality(shared: list[tuple[Piece, str]]) -> Modality:
    """All point-cloud samples."""
    items = []
    for split, total in SAMPLES.items():
        mine = [piece for piece, where in shared if where == split]
        for index, piece in enumerate(mine):
            for view in range(views(total, len(mine), index)):
                key = f"{piece.key}-turn{view:02d}"
                rng = np.random.default_rng(digest(key))
                yaw = float(rng.uniform(0, 2 * np.pi))
                data = _npy(_turned(piece.points, yaw, rng))
                captions = _captions(piece, yaw)
                items.append(
                    Item(key, data, piece.group, split, piece.credit, piece.label, captions)
                )
    return Modality(
        name="point_cloud",
        questions=("What object is this?", "What do the points show?", "Which object is it?"),
        prompts=("Describe the object.", "What do the points show?"),
        items=items,
        choices=tuple(NAMES),
    )
