"""Reading the binary model format of CTranslate2 (version 6), which holds named arrays.

The layout, little-endian: uint32 version; string name of the model; uint32 revision; uint32 number
of arrays; per array: string name, uint8 number of axes, uint32 per axis, uint8 type, uint32 number
of bytes, the data. A string is a uint16 length, counting the closing zero byte, and its characters.
Aliases (pairs of names) follow, which are not needed here.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pathweave.errors import FetchError

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a CTranslate2 model by name.

    Raises:
        FetchError: If the file is damaged or of another version.
    """
    with path.open("rb") as file:
        try:
            if (version := _number(file, "I")) != 6:
                raise FetchError(
                    f"{path.name} must be a CTranslate2 file of version 6, got {version}"
                )
            _string(file)
            _number(file, "I")
            return {_string(file): _array(file) for _ in range(_number(file, "I"))}
        except (struct.error, KeyError, ValueError) as error:
            if isinstance(error, FetchError):
                raise
            message = f"{path.name} must be a CTranslate2 file, got a damaged one"
            raise FetchError(message) from error


def _number(file: BinaryIO, kind: str) -> int:
    return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def _array(file: BinaryIO) -> np.ndarray:
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    dtype = _TYPES[_number(file, "B")]
    return np.frombuffer(file.read(_number(file, "I")), dtype).reshape(shape)
