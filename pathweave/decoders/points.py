"""Clouds of points and meshes: grey pictures from fixed directions, the nearest brightest.

Or, for encoders that read clouds, so many points of them. Axes: ``points`` of the cloud, ``views``
directions, ``height`` and ``width`` of a picture.
Coordinates are those of glTF: x to the right, y up, z to the viewer.
"""

import math
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8
from pydantic import Field

from pathweave.decoders.decoder import Decoder
from pathweave.decoders.geometry import coordinates, read_points
from pathweave.decoders.range_map import brightness
from pathweave.encoders.media import Array, Frames
from pathweave.errors import MediaError

# The first view shows front, right side and top, as a shop's catalogue does.
_FIRST_AZIMUTH = math.radians(35)
_ELEVATION = math.radians(20)

# Share of the rows that may be NaN or infinite before the cloud counts as broken.
_MAX_BAD_SHARE = 0.01


class Points(Decoder):
    """Decodes a cloud to grey pictures: nearest 255, farthest 64, background 0.

    The cloud is centred and scaled into a ball of radius 1, so neither its unit nor its place
    matters, and seen without perspective from ``views`` azimuths that divide the circle evenly,
    20 degrees from above; the first is 35 degrees right of the front. Accepted are ``.npy`` and
    ``.npz`` arrays ``[points, 3 or more]`` (the first three columns are x, y, z) and the mesh
    formats PLY, OBJ, OFF and GLB, whose surface is sampled. Up to one row in a hundred
    may be NaN or infinite and is left out.

    With ``count`` the result is no picture but the cloud itself, an array ``[count, 3]`` whose mean
    is the origin and whose farthest point is at distance 1. Of a larger cloud, points are taken
    that cover it evenly: each is farthest from all before it. Those of a smaller one are repeated.

    Args:
        views: How many directions; each gives one frame.
        size: Height and width of a frame, in pixels.
        max_points: A larger cloud is thinned to this many points, always the same ones.
        up: The coordinate that points up.
        count: Give so many points instead of pictures; ``views`` and ``size`` then mean nothing.

    Example:
        >>> import io
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.random.default_rng(0).normal(size=(1024, 3)))
        >>> Points(views=2, size=96)(stream.getvalue(), "ball.npy").pixels.shape
        (2, 96, 96, 3)
    """

    noun = "cloud or mesh (.npy, .npz, .ply, .obj, .off, .glb)"
    views: int = Field(default=1, ge=1, le=64)
    size: int = Field(default=96, ge=8, le=1024)
    max_points: int = Field(default=50_000, ge=1)
    up: Literal["y", "z"] = "y"
    count: int | None = Field(default=None, ge=1)

    @property
    def fingerprint(self) -> str:
        """Return the kind and every setting."""
        if self.count is not None:
            return f"points-2 count={self.count} max_points={self.max_points} up={self.up}"
        return (
            f"points-2 views={self.views} size={self.size} max_points={self.max_points} "
            f"up={self.up}"
        )

    def decode(self, data: bytes) -> Frames | Array:
        """Decode ``data``.

        Raises:
            MediaError: If they are an empty cloud or mesh, or one that is not finite.
            PathWeaveError: If trimesh is needed and not installed.
        """
        points = self.cloud(data)
        if self.count is not None:
            # In float64 neither the sum nor the norm of large numbers overflows.
            centred = points - points.mean(axis=0, dtype=np.float64)
        else:
            low, high = points.min(axis=0), points.max(axis=0)
            # Halves: the difference of two large float32 numbers may overflow.
            extent = float((high / 2 - low / 2).max()) or 1.0
            centred = (points - (low / 2 + high / 2)) / extent
        ball = (centred / (np.linalg.norm(centred, axis=1).max() or 1.0)).astype(np.float32)
        if self.count is not None:
            return Array(exactly(ball, self.count))
        azimuths = [_FIRST_AZIMUTH + 2 * math.pi * i / self.views for i in range(self.views)]
        grey = np.stack([render(ball, azimuth, self.size) for azimuth in azimuths])
        return Frames(np.repeat(grey[..., None], 3, axis=-1))

    def cloud(self, data: bytes) -> Float[np.ndarray, "points 3"]:
        """Return the points themselves, turned upright: at most ``max_points``, or ``count``.

        Raises:
            MediaError: See ``decode``.
            PathWeaveError: See ``decode``.
        """
        max_points = max(self.max_points, self.count or 0)
        points = _usable(read_points(data, max_points), max_points)
        if points.dtype == np.float64:
            points = points - points[0]  # else the mean, too, would be rounded far from the origin
        if self.up == "z":
            points = points[:, [0, 2, 1]] * np.array([1, 1, -1], dtype=np.float32)
        return points


def check_points(array: object) -> None:
    """Check that an array in memory is a cloud as in a file that can be decoded.

    Raises:
        MediaError: If it is no array, has another shape, or is not finite.
    """
    if not isinstance(array, np.ndarray):
        raise MediaError(
            f"must be an array [points, 3 or more], got {type(array).__name__}; save coordinates"
        )
    _usable(coordinates(array), len(array))


def render(
    points: Float32[np.ndarray, "points 3"],
    azimuth: float,
    size: int,
) -> UInt8[np.ndarray, "size size"]:
    """Draw how near the points of a cloud in the unit ball are, each as a small disc.

    Args:
        points: Coordinates at most 1 from the origin.
        azimuth: Direction of the viewer around the y axis, in radians; 0 looks from the front.
        size: Height and width of the picture, in pixels.
    """
    sin, cos = math.sin(azimuth), math.cos(azimuth)
    around_y = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    sin, cos = math.sin(_ELEVATION), math.cos(_ELEVATION)
    from_above = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    x, y, nearness = (points @ (from_above @ around_y).astype(np.float32).T).T
    # A surface that fills the picture is closed if every point covers its share of the pixels.
    # Below one pixel, rounding leaves holes.
    radius = max(1.0, min(1.1 * size / math.sqrt(len(points)), size / 24))
    middle = (size - 1) / 2
    column = np.rint(middle + (middle - radius) * x).astype(np.intp)
    row = np.rint(middle - (middle - radius) * y).astype(np.intp)
    order = np.argsort(nearness, kind="stable")
    centres = np.full((size, size), -np.inf, dtype=np.float32)
    # Where a pixel occurs twice, the last assignment stays: the nearest point.
    centres[row[order], column[order]] = nearness[order]
    nearest = centres.copy()
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    for down, right in product(reach, reach):
        if down * down + right * right <= radius * radius:
            # No disc reaches the border, so nothing comes back in on the other side.
            np.maximum(nearest, np.roll(centres, (down, right), axis=(0, 1)), out=nearest)
    return brightness(nearest, np.isfinite(nearest))


def exactly(points: Float32[np.ndarray, "points 3"], count: int) -> Float32[np.ndarray, "count 3"]:
    """Return ``count`` points of a cloud: evenly spread ones of a larger, all of a smaller again.

    The first of evenly spread points is the cloud's first, each other is farthest from all before
    it.

    Args:
        points: Coordinates.
        count: How many.
    """
    if len(points) <= count:
        return points[np.arange(count) % len(points)]
    axes = np.ascontiguousarray(points.T)
    chosen = np.empty(count, dtype=np.intp)
    distance = np.full(len(points), np.inf, dtype=np.float32)
    latest = 0
    for i in range(count):
        chosen[i] = latest
        to_latest = np.square(axes - axes[:, latest, None]).sum(axis=0)
        np.minimum(distance, to_latest, out=distance)
        latest = int(distance.argmax())
    return points[chosen]


def _usable(points: np.ndarray, max_points: int) -> Float[np.ndarray, "points 3"]:
    """Return at most so many points, and of those the finite ones."""
    if len(points) > max_points:
        # Drawn with a fixed seed: a stride would pick stripes out of scans stored row by row.
        points = points[np.random.default_rng(0).choice(len(points), max_points, replace=False)]
    # Far from the origin, only float64 tells neighbours apart; it is left once they are centred.
    points = points.astype(np.promote_types(points.dtype, np.float32))
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(points.astype(np.float32)).all(axis=1)
    num_bad = int((~is_finite).sum())
    if num_bad > _MAX_BAD_SHARE * len(points):
        raise MediaError(
            f"must have finite coordinates in at least 99 % of its points, got {num_bad:,} bad of "
            f"{len(points):,}; remove them before saving"
        )
    return points[is_finite]
