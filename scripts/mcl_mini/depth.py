"""Depth maps: furniture seen by a pinhole camera from several sides.

A pixel holds the distance to the camera, from 1 (near plane) to 255 (far plane); 0 is no
measurement. The planes are the same for every picture, so distances compare across pictures.
"""

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scripts.mcl_mini.furniture import Piece
from scripts.mcl_mini.furniture_labels import NAMES, WITH_FRONT
from scripts.mcl_mini.items import Item, Modality
from scripts.mcl_mini.splits import digest

SIZE = 96
DISTANCE = 2.2
NEAR, FAR = DISTANCE - 0.9, DISTANCE + 0.9
FOCAL = 3.0
SAMPLES = {"train": 1200, "validation": 160, "test": 1000}
SIDES = ("front", "right", "back", "left")


def render(
    points: Float[np.ndarray, "points 3"], azimuth: float, elevation: float
) -> UInt8[np.ndarray, "size size"]:
    """The depth map of surface points.

    Args:
        points: Surface, centred; y is up, +z is the front.
        azimuth: Where the camera stands, in radians: 0 in front, pi/2 at the piece's own left
            (the right-hand side for a person looking at its front).
        elevation: How high the camera stands, in radians above the horizon.
    """
    cos_a, sin_a = np.cos(azimuth), np.sin(azimuth)
    cos_e, sin_e = np.cos(elevation), np.sin(elevation)
    turn = np.array([[cos_a, 0, -sin_a], [0, 1, 0], [sin_a, 0, cos_a]])
    tilt = np.array([[1, 0, 0], [0, cos_e, -sin_e], [0, sin_e, cos_e]])
    seen = points @ (tilt @ turn).T
    range_ = DISTANCE - seen[:, 2]
    column = np.floor((0.5 + FOCAL * seen[:, 0] / range_ / 2) * SIZE).astype(int)
    row = np.floor((0.5 - FOCAL * seen[:, 1] / range_ / 2) * SIZE).astype(int)
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    nearest = np.full((SIZE, SIZE), np.inf)
    np.minimum.at(nearest, (row[inside], column[inside]), range_[inside])
    return _quantised(_closed(nearest))


def _closed(nearest: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "size size"]:
    """Fills single-pixel gaps between sampled points from the nearer pair of neighbours."""
    padded = np.pad(nearest, 1, constant_values=np.inf)
    across = np.maximum(padded[1:-1, :-2], padded[1:-1, 2:])
    along = np.maximum(padded[:-2, 1:-1], padded[2:, 1:-1])
    return np.minimum(nearest, np.minimum(across, along))


def _quantised(nearest: Float[np.ndarray, "size size"]) -> UInt8[np.ndarray, "size size"]:
    """Distances as bytes, 0 where nothing was hit."""
    level = 1 + np.rint(254 * ((nearest - NEAR) / (FAR - NEAR)).clip(0, 1))
    return np.where(np.isfinite(nearest), level, 0).astype(np.uint8)


def _png(pixels: UInt8[np.ndarray, "height width"]) -> bytes:
    """A single-channel PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _captions(piece: Piece, azimuth: float, elevation: float) -> list[str]:
    """Captions from what a depth map shows: the class, its proportions and the point of view."""
    noun = piece.label.split(" ", 1)[1]
    side = SIDES[round(azimuth / (np.pi / 2)) % 4]
    if elevation > np.pi / 5:
        view = "from above"
    elif piece.label in WITH_FRONT:
        view = f"from the {side}"
    else:
        view = "from the side"
    return [
        f"a {piece.shape} {noun} seen {view}",
        f"a {noun}, {piece.shape}, viewed {view}",
        f"a depth map of a {piece.shape} {noun} {view}",
    ]


def views(total: int, things: int, index: int) -> int:
    """How many samples the thing number `index` contributes to a total."""
    return total * (index + 1) // things - total * index // things


def modality(shared: list[tuple[Piece, str]]) -> Modality:
    """All depth samples."""
    items = []
    for split, total in SAMPLES.items():
        mine = [piece for piece, where in shared if where == split]
        for index, piece in enumerate(mine):
            for view in range(views(total, len(mine), index)):
                key = f"{piece.key}-view{view:02d}"
                rng = np.random.default_rng(digest(key))
                azimuth = float(rng.uniform(0, 2 * np.pi))
                elevation = float(np.deg2rad(rng.choice([rng.uniform(5, 30), rng.uniform(42, 60)])))
                data = _png(render(piece.points, azimuth, elevation))
                captions = _captions(piece, azimuth, elevation)
                items.append(
                    Item(key, data, piece.group, split, piece.credit, piece.label, captions)
                )
    return Modality(
        name="depth",
        questions=("What object is this?", "What is shown?", "Which object is seen?"),
        prompts=("Describe the object.", "What does the depth map show?"),
        items=items,
        choices=tuple(NAMES),
    )
