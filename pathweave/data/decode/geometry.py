"""Reads the coordinates out of files of clouds and meshes."""

import io
import zipfile

import numpy as np
from jaxtyping import Shaped

from pathweave.data.decode.describe import describe
from pathweave.data.decode.npy import MAGIC, read_npy
from pathweave.errors import MediaError
from pathweave.extras import import_extra

# Names under which programs store coordinates in an .npz archive, in order of preference.
_NPZ_NAMES = ("points", "xyz", "pos", "vertices", "arr_0")

# An archive may claim any size; more than this is not a cloud anyone decodes for one picture.
_MAX_UNPACKED_BYTES = 1 << 30


def read_points(data: bytes, name: str, num_samples: int) -> Shaped[np.ndarray, "points 3"]:
    """Return the coordinates of a cloud, or of ``num_samples`` points on the surface of a mesh.

    Raises:
        MediaError: If the bytes are not a cloud or mesh with at least one point.
        PathWeaveError: If trimesh is needed and not installed.
    """
    if data.startswith(MAGIC):
        points = read_npy(data, name)
    elif data.startswith(b"PK\x03\x04"):
        points = _read_npz(data, name)
    else:
        points = _read_mesh(data, name, num_samples)
    return coordinates(points, name)


def coordinates(points: np.ndarray, name: str) -> Shaped[np.ndarray, "points 3"]:
    """Return x, y and z of an array, one row a point.

    Raises:
        MediaError: If it has another shape or no point.
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise MediaError(
            f"{name} must have the shape [points, 3 or more], got {list(points.shape)}; save x, y "
            "and z as columns"
        )
    if len(points) == 0:
        raise MediaError(f"{name} must have at least one point, got none; leave it out")
    return points[:, :3]


def _read_npz(data: bytes, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            found = [f"{key}.npy" for key in _NPZ_NAMES if f"{key}.npy" in sizes] or list(sizes)
            if len(found) == 0 or (len(sizes) > 1 and found == list(sizes)):
                raise MediaError(
                    f"{name} must hold an array named {', '.join(_NPZ_NAMES[:-1])}, got "
                    f"{sorted(sizes)[:5]}; rename it when saving"
                )
            if sizes[found[0]] > _MAX_UNPACKED_BYTES:
                raise MediaError(
                    f"{name} must unpack to at most {_MAX_UNPACKED_BYTES >> 20} MiB, got "
                    f"{sizes[found[0]] >> 20} MiB; thin the cloud before saving"
                )
            array = archive.read(found[0])
    except MediaError:
        raise
    except Exception as error:  # zipfile, too, lets errors of every kind escape.
        raise MediaError(
            f"{name} must be a whole .npz archive, got {describe(data)} that cannot be unpacked "
            f"({error}); copy or write the file again"
        ) from error
    return read_npy(array, f"{name}:{found[0]}")


def _mesh_type(data: bytes) -> str | None:
    if data.startswith(b"ply"):
        return "ply"
    if data.startswith(b"glTF"):
        return "glb"
    if data[:4].upper().lstrip(b"CN").startswith(b"OFF"):
        return "off"
    is_vertex = (line.startswith(b"v ") for line in data[:1_000_000].splitlines())
    return "obj" if any(is_vertex) else None


def _read_mesh(data: bytes, name: str, num_samples: int) -> np.ndarray:
    file_type = _mesh_type(data)
    if file_type is None:
        raise MediaError(
            f"{name} must be a cloud or mesh (.npy, .npz, .ply, .obj, .off, .glb), got "
            f"{describe(data)}; replace the file or declare the right decoder"
        )
    trimesh = import_extra("trimesh", "mesh")
    try:
        scene = trimesh.load(io.BytesIO(data), file_type=file_type, skip_materials=True)
        shape = scene.to_geometry() if isinstance(scene, trimesh.Scene) else scene
        if isinstance(shape, trimesh.Trimesh) and len(shape.faces) and shape.area > 0:
            return trimesh.sample.sample_surface(shape, num_samples, seed=0)[0]
        return np.asarray(shape.vertices).reshape(-1, 3)
    except Exception as error:  # trimesh lets errors of every kind escape from broken files.
        raise MediaError(
            f"{name} must be a whole {file_type} mesh or cloud, got {describe(data)} that cannot "
            f"be read ({type(error).__name__}: {error}); export the file again"
        ) from error
