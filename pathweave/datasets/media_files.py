"""Media of data sets: where they are, whether they are there, and whether they are whole."""

import errno
import stat
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from os.path import relpath
from pathlib import Path
from typing import Any

from pathweave.data.utf8 import find_bad_text
from pathweave.decoders import build_decoder
from pathweave.decoders.decoder import SIGNATURES, describe
from pathweave.decoders.whole import stated_length
from pathweave.errors import ManifestError, MediaError, PathWeaveError

# What a path leads to if there is nothing: no such name, a part of it that is a file, one too long.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)

_HEAD = 64

_PNG_END = b"IEND\xaeB`\x82"


class MissingError(MediaError):
    """A medium is not on disk."""


@dataclass(frozen=True)
class FoundMedium:
    """A medium on disk, or an array that stands in the annotation file.

    Args:
        decoder: Kind of the decoder that reads it.
        name: What it is called in messages, and its key where it is an array.
        file: The file, if it is one.
        array: The array, if it is one.
    """

    decoder: str
    name: str
    file: Path | None = None
    array: Any = None


def prefix_of(directory: Path, base: Path) -> str:
    """Return what leads from a base to a directory, to be put before the paths of media.

    Raises:
        ManifestError: If it is not UTF-8, as a manifest has to be.

    Example:
        >>> prefix_of(Path("data/media"), Path("data/manifests"))
        '../media/'
    """
    prefix = relpath(directory.resolve(), base.resolve())
    if bad := find_bad_text(prefix):
        raise ManifestError(
            f"the path from a manifest to its media must be UTF-8, got {bad}; rename the directory"
        )
    return "" if prefix == "." else f"{prefix}/"


def is_file(path: Path) -> bool:
    """Return whether there is a file.

    Raises:
        MediaError: If that cannot be known, as a directory on the way cannot be read.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in _NOTHING:
            return False
        raise MediaError(
            f"{path} must be readable, got {error.strerror}; change its directory's permissions"
        ) from error


def check_medium(medium: FoundMedium, decode: bool) -> str:
    """Return what is wrong with a medium, or an empty text.

    Args:
        medium: The medium.
        decode: Whether to decode it as a whole; otherwise only its first and last bytes are read,
            which finds empty, mislabelled and most truncated files.
    """
    if medium.file is None:
        return ""  # An array was checked when its annotation was read.
    try:
        state = medium.file.stat()
        problem = _check_file(medium.file, state.st_size, state.st_mtime_ns)
        if not problem and decode:
            build_decoder(medium.decoder)(medium.file.read_bytes(), medium.name)
    except OSError as error:
        return f"{medium.name} must be readable, got {error.strerror}; change its permissions"
    except PathWeaveError as error:
        return str(error)
    return f"{medium.name} {problem}" if problem else ""


# A clip has twenty captions and as many questions.
@lru_cache(maxsize=1 << 15)
def _check_file(file: Path, size: int, _changed: int) -> str:
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
        stream.seek(max(0, size - _HEAD))
        tail = stream.read(_HEAD)
    ending = file.suffix.lower()
    starts = [head.startswith(marks, at) for at, marks, _, of in SIGNATURES if ending in of.split()]
    if not head or (starts and not any(starts)):
        return f"must be a {ending} file, got {describe(head)}; download it again"
    truncated = (
        stated_length(head) > size
        or (ending == ".png" and _PNG_END not in tail)
        or (ending == ".npz" and not zipfile.is_zipfile(file))
    )
    return f"must be a whole {ending} file, got one that breaks off; copy it again" * truncated
