"""Reads the coordinates out of files of clouds and meshes."""

import codecs
import io
import re
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Shaped

from pathweave.decoders.array import MAGIC, read_npy
from pathweave.decoders.pair import is_pair, unpacked
from pathweave.errors import MediaError
from pathweave.extras import import_extra

# Names under which programs store coordinates in an .npz archive, in order of preference.
_NPZ_NAMES = ("points", "xyz", "pos", "vertices", "arr_0")

# A point has more numbers than this only in arrays that also have many points.
_MOST_COLUMNS = 12


def read_points(data: bytes, num_samples: int) -> Shaped[np.ndarray, "points 3"]:
    """Return the coordinates of a cloud, or of ``num_samples`` points on the surface of a mesh.

    Raises:
        MediaError: If it has no point, or other arrays.
        PathWeaveError: If trimesh is needed and not installed.
        Exception: If it is no whole cloud or mesh.
    """
    if data.startswith(MAGIC):
        return coordinates(read_npy(data))
    if is_pair(data):
        return coordinates(_read_npz(data))
    return coordinates(_read_mesh(data, num_samples))


def coordinates(points: np.ndarray) -> Shaped[np.ndarray, "points 3"]:
    """Return x, y and z of an array, one row a point.

    Raises:
        MediaError: If it has another shape or no point.
    """
    rows, columns = points.shape if points.ndim == 2 else (0, 0)
    if columns < 3:
        raise MediaError(
            f"must have the shape [points, 3 or more], got {list(points.shape)}; save x, y, z"
        )
    if rows < columns and (0 < rows <= _MOST_COLUMNS < columns or columns > 256):
        raise MediaError(
            f"must have a row for each point, got {rows:,} rows of {columns:,}; transpose it"
        )
    if rows == 0:
        raise MediaError("must have at least one point, got none; leave it out")
    return points[:, :3]


def _read_npz(data: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        found = [members[f"{key}.npy"] for key in _NPZ_NAMES if f"{key}.npy" in members]
        if not found and len(members) == 1:
            found = list(members.values())
        if not found:
            raise MediaError(
                f"must hold an array named {', '.join(_NPZ_NAMES[:-1])}, got "
                f"{sorted(members)[:5]}; rename it when saving"
            )
        arrays = [read_npy(content) for content in unpacked(archive, found)]
    # Beside the cloud, its number of points may stand under one of the names.
    return next((array for array in arrays if array.ndim == 2), arrays[0])


def _mesh_type(data: bytes) -> str | None:
    if data.startswith(b"ply"):
        return "ply"
    if data.startswith(b"glTF"):
        return "glb"
    if data[:4].upper().lstrip(b"CN").startswith(b"OFF"):
        return "off"
    return "obj" if re.search(rb"^[ \t]*v[ \t]", data[:1_000_000], re.MULTILINE) else None


def _plain_obj(data: bytes) -> bytes:
    """Write OBJ as trimesh reads it: no tabs, blanks at the start or comments, a line a row."""
    data = re.sub(rb"\\[ \t]*\n", b" ", data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return re.sub(rb"^ +| *#.*$", b"", data.replace(b"\t", b" "), flags=re.MULTILINE)


def _is_ragged(shape: Any) -> bool:  # noqa: ANN401
    """Return whether lists of a binary PLY differ in length, which trimesh overlooks."""
    elements = (element.get("data") for element in shape.metadata.get("_ply_raw", {}).values())
    tables = [table for table in elements if isinstance(table, np.ndarray) and len(table)]
    lists = [table[key] for table in tables for key in table.dtype.names or ()]
    return any(
        bool((column["f0"] != column["f0"][0]).any()) for column in lists if column.dtype.names
    )


def _read_mesh(data: bytes, num_samples: int) -> np.ndarray:
    data = data.removeprefix(codecs.BOM_UTF8)
    file_type = _mesh_type(data)
    if file_type is None:
        raise ValueError("no format of clouds or meshes")
    trimesh = import_extra("trimesh", "mesh")
    try:
        data = _plain_obj(data) if file_type == "obj" else data
        scene = trimesh.load(io.BytesIO(data), file_type=file_type, skip_materials=True)
        if _is_ragged(scene):
            raise ValueError("its lists differ in length")
    except Exception as error:  # trimesh lets errors of every kind escape from broken files.
        if file_type == "ply" and b"\nformat ascii" not in data[:200]:
            raise MediaError(
                f"must be a whole PLY file, got one that cannot be read ({error}); write it again, "
                "triangulated or as ASCII if polygons or lists differ in size"
            ) from error
        raise
    shape = scene.to_geometry() if isinstance(scene, trimesh.Scene) else scene
    if isinstance(shape, trimesh.Trimesh) and len(shape.faces) and shape.area > 0:
        return trimesh.sample.sample_surface(shape, num_samples, seed=0)[0]
    return np.asarray(shape.vertices).reshape(-1, 3)
