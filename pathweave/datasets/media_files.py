"""Media of data sets: where they are, whether they are there, and whether they are whole."""

import base64
import errno
import io
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os.path import isabs, normpath, relpath
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.data.messages import Part
from pathweave.data.utf8 import find_bad_text
from pathweave.datasets.patterns import check_path
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
    """A medium on disk, or one that stands in the annotation file, as an array or as bytes.

    Args:
        decoder: Kind of the decoder that reads it; empty where that is not known.
        name: What it is called in messages, and its key where it is no file.
        file: The file, if it is one.
        array: The array, if it is one.
        content: The bytes of a file that stand in the annotation.
    """

    decoder: str
    name: str
    file: Path | None = None
    array: Any = None
    content: bytes | None = None


def content_of(medium: FoundMedium) -> bytes:
    """Return the bytes of a medium that stands in a record, as those of a file."""
    if medium.content is not None:
        return medium.content
    stream = io.BytesIO()
    np.save(stream, np.asarray(medium.array, dtype=np.float32), allow_pickle=False)
    return stream.getvalue()


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


class MediaPlaces:
    """Makes parts of messages out of what records say of their media.

    Args:
        directory: Directory that the paths of media are relative to.
        base: Directory that the paths in samples are to be relative to.
        store: Name of the media store beside the manifest, for bytes that stand in a record; None
            refuses them.
        modality: The type of all media; None takes the kind that a record tells.

    Raises:
        ManifestError: If the path to the media is not UTF-8.
    """

    def __init__(
        self, directory: Path, base: Path, store: str | None, modality: str | None
    ) -> None:
        self._directories = (directory.absolute(), directory.resolve())
        self._base, self._store = base.resolve(), store
        self._prefix = prefix_of(directory, base)
        self.modality = modality

    def part(self, kind: str, value: object, key: str) -> tuple[Part, FoundMedium | None]:
        """Return the part of a medium, and the medium itself if it stands in the record.

        Args:
            kind: What the record calls it.
            value: Its path, its bytes, or a mapping with one of both (in JSON bytes are base64). An
                absolute path may lead to a file below the directory of media.
            key: Its key in the store, where it has no path.

        Raises:
            ManifestError: If the value is none of these, or leads out of the directory of media.
        """
        name = self.modality or kind
        path, content = value, value if isinstance(value, bytes) else None
        if isinstance(value, Mapping):
            path, content = value.get("path"), value.get("bytes")
        if content is not None:
            if self._store is None:
                raise ManifestError("a medium must be a file, got its bytes; save it and name it")
            medium = FoundMedium("", key, content=_as_bytes(content))
            return Part(type=name, path=f"{self._store}#{key}"), medium
        if isinstance(path, str) and isabs(path):
            below = (relpath(path, directory) for directory in self._directories)
            path = next((found for found in below if not found.startswith("..")), path)
        return Part(type=name, path=self._prefix + check_path(path)), None

    def check(self, parts: Iterable[Part]) -> None:
        """Check that all files are there.

        Raises:
            MissingError: If one is not.
            MediaError: If that cannot be known.
        """
        for path in (part.path for part in parts if part.path):
            # The directory of the manifest may not be there yet, so ".." is not left to the disk.
            is_stored = path.startswith(f"{self._store}#")
            if not is_stored and not is_file(Path(normpath(self._base / path))):
                raise MissingError(f"no file {path:.80}")


def _as_bytes(content: object) -> bytes:
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True)
        except ValueError as error:
            raise ManifestError(
                f"bytes of a medium must be base64 in JSON, got {content[:40]!r} ({error})"
            ) from error
    if not isinstance(content, bytes) or not content:
        raise ManifestError(f"bytes of a medium must hold a file, got {content!r:.40}")
    return content


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
