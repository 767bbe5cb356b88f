"""Tells whether the file of a medium is what its name says, from its first and last bytes."""

import zipfile
from functools import lru_cache
from pathlib import Path

from pathweave.data.decode import build_decoder
from pathweave.data.decode.describe import describe
from pathweave.datasets.reader import FoundMedium
from pathweave.errors import PathWeaveError

_HEAD = 64

# What files with these endings begin with, and from which byte on.
_STARTS: dict[str, tuple[tuple[int, bytes], ...]] = {
    ".jpg": ((0, b"\xff\xd8\xff"),),
    ".jpeg": ((0, b"\xff\xd8\xff"),),
    ".png": ((0, b"\x89PNG\r\n\x1a\n"),),
    ".gif": ((0, b"GIF8"),),
    ".wav": ((8, b"WAVE"),),
    ".avi": ((8, b"AVI "),),
    ".webp": ((8, b"WEBP"),),
    ".flac": ((0, b"fLaC"), (0, b"ID3")),
    ".ogg": ((0, b"OggS"),),
    ".mp3": ((0, b"ID3"), (0, b"\xff\xfb"), (0, b"\xff\xf3"), (0, b"\xff\xf2")),
    ".mp4": ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free")),
    ".mkv": ((0, b"\x1aE\xdf\xa3"),),
    ".webm": ((0, b"\x1aE\xdf\xa3"),),
    ".npy": ((0, b"\x93NUMPY"),),
    ".npz": ((0, b"PK\x03\x04"),),
}
_RIFF = (".wav", ".avi", ".webp")

# Programs that write to a pipe cannot know the size and leave one of these.
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_PNG_END = b"IEND\xaeB`\x82"


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
    starts = _STARTS.get(ending)
    if not head or (starts and not any(head[at:].startswith(mark) for at, mark in starts)):
        return f"must be a {ending} file, got {describe(head)}; download it again"
    declared = int.from_bytes(head[4:8], "little")
    truncated = (
        (ending in _RIFF and declared not in _UNKNOWN_SIZES and declared > size + 1)
        or (ending == ".png" and _PNG_END not in tail)
        or (ending == ".npz" and not zipfile.is_zipfile(file))
    )
    return f"must be a whole {ending} file, got one that breaks off; copy it again" * truncated
