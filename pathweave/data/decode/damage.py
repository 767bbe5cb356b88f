"""The errors of bytes that are no whole medium, and what such bytes look like."""

import contextlib
from collections.abc import Iterator

from pathweave.errors import MediaError, PathWeaveError

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG data"),
    (b"\xff\xd8\xff", "JPEG data"),
    (b"GIF8", "GIF data"),
    (b"II*\x00", "TIFF data"),
    (b"MM\x00*", "TIFF data"),
    (b"BM", "BMP data"),
    (b"\x93NUMPY", "NumPy data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"glTF", "binary glTF data"),
    (b"fLaC", "FLAC data"),
    (b"OggS", "Ogg data"),
    (b"ID3", "MP3 data"),
    (b"FORM", "AIFF data"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM data"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "Parquet data"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)


def describe(data: bytes) -> str:
    """Return what ``data`` looks like, from its first bytes.

    Example:
        >>> describe(b"hello")
        "text beginning 'hello'"
        >>> describe(b"")
        'an empty file (0 bytes)'
    """
    if not data:
        return "an empty file (0 bytes)"
    for signature, words in _SIGNATURES:
        if data.startswith(signature):
            return f"{words} ({len(data):,} bytes)"
    if data[:4] == b"RIFF":
        return f"{data[8:12].decode('ascii', 'replace').strip()} data ({len(data):,} bytes)"
    if data[4:8] == b"ftyp":
        return f"MP4 data ({len(data):,} bytes)"
    start = data[:24].decode("ascii", "replace").split("\n")[0].strip()
    if start.isprintable() and start.isascii() and start:
        return f"text beginning {start!r}"
    return f"{len(data):,} bytes beginning {data[:8].hex(' ')}"


def mislabelled(name: str, kind: str, data: bytes, reason: str = "") -> MediaError:
    """Return the error of bytes that a decoder does not know.

    Args:
        name: Name of the medium.
        kind: What it should be.
        data: The bytes.
        reason: What a library says of them.
    """
    why = f" that cannot be decoded ({reason})" if reason else ""
    return MediaError(
        f"{name} must be a whole {kind}, got {describe(data)}{why}; replace the file or declare "
        "the right decoder"
    )


def damaged(name: str, kind: str, reason: object, found: str = "one", also: str = "") -> MediaError:
    """Return the error of a medium of the right kind that is truncated or damaged.

    Args:
        name: Name of the medium.
        kind: What it should be a whole one of.
        reason: What is wrong with it.
        found: What it is instead.
        also: Another remedy, beside writing it again.
    """
    return MediaError(
        f"{name} must be a whole {kind}, got {found} that breaks off or is damaged ({reason}); "
        f"copy or write the file again{also}"
    )


@contextlib.contextmanager
def intact(name: str, kind: str, found: str = "one") -> Iterator[None]:
    """Turn whatever a library raises into the error of a damaged medium.

    Libraries of formats let errors of every kind escape from broken files.
    """
    try:
        yield
    except PathWeaveError:
        raise
    except Exception as error:
        raise damaged(name, kind, error, found) from error
