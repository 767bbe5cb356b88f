"""Arrays that another program has computed, such as the features of a foreign encoder.

``.npy`` files are read without ever unpickling, and without trusting their header.
"""

import io
import math

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load

from pathweave.decoders.decoder import Decoder
from pathweave.encoders.media import Array
from pathweave.errors import MediaError

MAGIC = b"\x93NUMPY"

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Values(Decoder):
    """Decodes a ``.npy`` file, or a safetensors file with one tensor, to rows of numbers.

    An array with one axis becomes one token. Any real dtype is converted to float32.

    Args:
        width: Numbers a token must have; any if not given.

    Example:
        >>> from safetensors.numpy import save
        >>> Values(width=8)(save({"x": np.ones((3, 8))}), "x.safetensors").values.shape
        (3, 8)
    """

    noun = ".npy or safetensors file"
    width: int | None = Field(default=None, ge=1)

    @property
    def fingerprint(self) -> str:
        """Return the kind; the width changes what is refused, not the output."""
        return "array-1"

    def decode(self, data: bytes) -> Array:
        """Decode ``data``.

        Raises:
            MediaError: If they are not one array of finite numbers ``[tokens, width]``.
        """
        values = read_npy(data) if data.startswith(MAGIC) else _read_safetensors(data)
        with np.errstate(over="ignore"):
            values = np.atleast_2d(values).astype(np.float32)
        if values.ndim != 2 or values.size == 0:
            raise MediaError(
                f"must have the shape [tokens, width] or [width], got {list(values.shape)}; save "
                "one array a file, without a batch axis"
            )
        if self.width not in (None, values.shape[1]):
            raise MediaError(
                f"must have {self.width} numbers a token, got {values.shape[1]}; correct the width "
                "of the decoder, or compute the array with the encoder it is meant for"
            )
        if not np.isfinite(values).all():
            raise MediaError("must hold finite numbers, got NaN or infinity; compute it again")
        return Array(values)


def _read_safetensors(data: bytes) -> np.ndarray:
    tensors = load(data)
    if len(tensors) != 1:
        listed = ", ".join(sorted(tensors)[:5])
        raise MediaError(
            f"must hold one tensor, got {len(tensors)} ({listed}); save one array a file"
        )
    [tensor] = tensors.values()
    if tensor.is_complex():
        raise MediaError(
            f"must hold real numbers, got {tensor.dtype}; save the parts as separate columns"
        )
    return tensor.to(torch.float32).numpy()


def read_npy(data: bytes) -> np.ndarray:
    """Return the numbers in a ``.npy`` file as a read-only view, without a copy.

    Raises:
        MediaError: If they are no plain numbers.
        Exception: If it is no whole file: NumPy lets errors of its Python tokenizer escape, too.
    """
    stream = io.BytesIO(data)
    shape, is_fortran, dtype = _READ_HEADER[np.lib.format.read_magic(stream)](stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape {shape}")
    if dtype.kind not in "biuf":
        found = "pickled Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise MediaError(
            f"must hold real numbers, got {found}; convert with array.astype('float32')"
        )
    # Python's integers do not overflow, however large a shape the header claims.
    claimed, there = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if there < claimed:
        raise ValueError(f"{there:,} bytes of {claimed:,} after its header (shape {shape})")
    return np.ndarray(shape, dtype, data, stream.tell(), order="F" if is_fortran else "C")
