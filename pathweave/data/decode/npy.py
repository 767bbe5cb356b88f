"""Reads a NumPy ``.npy`` file without ever unpickling, and without trusting its header."""

import io
import math

import numpy as np

from pathweave.data.decode.damage import describe
from pathweave.errors import MediaError

MAGIC = b"\x93NUMPY"

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(data: bytes, name: str) -> np.ndarray:
    """Return the numbers in ``data`` as a read-only view, without a copy.

    Raises:
        MediaError: If the bytes are not a whole ``.npy`` file of plain numbers.
    """
    if not data.startswith(MAGIC):
        raise MediaError(
            f"{name} must be a NumPy .npy file, got {describe(data)}; write it with numpy.save"
        )
    stream = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = _READ_HEADER[np.lib.format.read_magic(stream)](stream)
        if min(shape, default=0) < 0:
            raise ValueError(f"the shape {shape}")
    except Exception as error:  # NumPy lets errors of its Python tokenizer escape, too.
        raise MediaError(
            f"{name} must have a readable .npy header, got {error}; write it again with numpy.save"
        ) from error
    if dtype.kind not in "biuf":
        found = "pickled Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise MediaError(
            f"{name} must hold real numbers, got {found}; convert with array.astype('float32') "
            "and save again"
        )
    # Python's integers do not overflow, however large a shape the header claims.
    claimed, there = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if there < claimed:
        raise MediaError(
            f"{name} must hold {claimed:,} bytes after its header (shape {shape}), got {there:,}; "
            "the file is truncated: copy or write it again"
        )
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if is_fortran else "C")
