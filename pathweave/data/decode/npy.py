"""Reads a NumPy ``.npy`` file without ever unpickling, and without trusting its header."""

import io

import numpy as np

from pathweave.data.decode.describe import describe
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
    shape, is_fortran, dtype, start = _read_header(data, name)
    if dtype.kind not in "biuf":
        found = "pickled Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise MediaError(
            f"{name} must hold real numbers, got {found}; convert with array.astype('float32') "
            "and save again"
        )
    # Python integers do not overflow, however large a shape the header claims.
    count = 1
    for size in shape:
        count *= size
    if len(data) - start < count * dtype.itemsize:
        raise MediaError(
            f"{name} must hold {count * dtype.itemsize:,} bytes after its header (shape {shape}), "
            f"got {len(data) - start:,}; the file is truncated: copy or write it again"
        )
    values = np.frombuffer(data, dtype=dtype, count=count, offset=start)
    return values.reshape(shape, order="F" if is_fortran else "C")


def _read_header(data: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, is_fortran, dtype = _READ_HEADER[version](stream)
        if min(shape, default=0) < 0:
            raise ValueError(f"the shape {shape}")
    except Exception as error:  # NumPy lets errors of its Python tokenizer escape, too.
        raise MediaError(
            f"{name} must have a readable .npy header, got {error}; write it again with numpy.save"
        ) from error
    return shape, is_fortran, dtype, stream.tell()
