"""Reading the binary model format of CTranslate2 (version 6), which holds named arrays.

The layout, little-endian: uint32 version; string name of the model; uint32 revision; uint32 number
of arrays; per array: string name, uint8 number of axes, uint32 per axis, uint8 type, uint32 number
of bytes, the data. A string is a uint16 length, counting the closing zero byte, and its characters.
Aliases (pairs of names) follow, which are not needed here.
"""

import struct
from pathlib import Path

import numpy as np

from pathweave.errors import FetchError

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class _Reader:
    """A cursor over the bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.position)
        self.position += struct.calcsize(kind)
        return value

    def string(self) -> str:
        length = self.number("H")
        text = self.data[self.position : self.position + length - 1]
        self.position += length
        return text.decode()

    def array(self) -> np.ndarray:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = np.dtype(_TYPES[self.number("B")])
        num_bytes = self.number("I")
        values = np.frombuffer(
            self.data, dtype, count=num_bytes // dtype.itemsize, offset=self.position
        )
        self.position += num_bytes
        return values.reshape(shape)


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a CTranslate2 model by name.

    Raises:
        FetchError: If the file is damaged or of another version.
    """
    reader = _Reader(path.read_bytes())
    try:
        version = reader.number("I")
        if version != 6:
            raise FetchError(f"{path.name} must be a CTranslate2 file of version 6, got {version}")
        reader.string()
        reader.number("I")
        return {reader.string(): reader.array() for _ in range(reader.number("I"))}
    except (struct.error, KeyError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{path.name} must be a CTranslate2 file, got a damaged one") from error
