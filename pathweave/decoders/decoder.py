"""What all decoders are, and what bytes look like that are no whole medium."""

import io
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from pathweave.encoders.media import Media
from pathweave.errors import MediaError, PathWeaveError
from pathweave.parts import source_of

# How files begin: at which byte, with which marks, what they are, and the endings of their names.
SIGNATURES: tuple[tuple[int, tuple[bytes, ...], str, str], ...] = (
    (0, (b"\x89PNG\r\n\x1a\n",), "PNG data", ".png"),
    (0, (b"\xff\xd8\xff",), "JPEG data", ".jpg .jpeg"),
    (0, (b"GIF8",), "GIF data", ".gif"),
    (0, (b"II*\x00", b"MM\x00*"), "TIFF data", ""),
    (0, (b"BM",), "BMP data", ""),
    (0, (b"\x93NUMPY",), "NumPy data", ".npy"),
    (0, (b"PK\x03\x04",), "a ZIP archive", ".npz"),
    (0, (b"glTF",), "binary glTF data", ""),
    (0, (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"), "MP3 data", ".mp3"),
    (0, (b"fLaC", b"ID3"), "FLAC data", ".flac"),
    (0, (b"OggS",), "Ogg data", ".ogg"),
    (0, (b"FORM",), "AIFF data", ""),
    (0, (b"\x1aE\xdf\xa3",), "Matroska or WebM data", ".mkv .webm"),
    (0, (b"%PDF",), "a PDF document", ""),
    (0, (b"PAR1",), "Parquet data", ""),
    (0, (b"\x1f\x8b",), "gzip data", ""),
    (0, (b"\x80\x02", b"\x80\x04"), "a Python pickle", ""),
    (0, (b"version https://git-lfs",), "a Git LFS pointer instead of the file", ""),
    (0, (b"<!DOCTYPE", b"<html"), "a web page", ""),
    (8, (b"WAVE",), "WAVE data", ".wav"),
    (8, (b"AVI ",), "AVI data", ".avi"),
    (8, (b"WEBP",), "WEBP data", ".webp"),
    (4, (b"ftyp", b"moov", b"mdat", b"free"), "MP4 data", ".mp4"),
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
    for at, marks, words, _ in SIGNATURES:
        if data.startswith(marks, at):
            return f"{words} ({len(data):,} bytes)"
    start = data[:24].decode("ascii", "replace").split("\n")[0].strip()
    if start.isprintable() and start.isascii() and start:
        return f"text beginning {start!r}"
    return f"{len(data):,} bytes beginning {data[:8].hex(' ')}"


def as_array(value: Any) -> np.ndarray:  # noqa: ANN401
    """Return an array or a tensor as an array of numbers.

    Raises:
        MediaError: If it is neither.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value)
        raise MediaError(
            f"must be bytes, an array or a tensor of numbers, got {found}; convert it, or name a "
            "file as path"
        )
    return value


class Decoder(BaseModel, ABC, frozen=True, extra="forbid"):
    """Turns bytes into a medium; the same bytes always give the same medium.

    Attributes:
        noun: What the bytes must be a whole one of, for messages.
    """

    noun: ClassVar[str]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Return the kind and every setting that changes the output."""

    @property
    def key(self) -> str:
        """Fingerprint with which features are kept: of a user's own decoder also its source."""
        source = source_of(type(self))
        return f"{self.fingerprint} source={source}" if source else self.fingerprint

    @abstractmethod
    def decode(self, data: bytes) -> Media:
        """Decode ``data``.

        Raises:
            MediaError: Beginning with the rule, if they are a medium that cannot be used.
            PathWeaveError: If a library is needed and not installed.
            Exception: Whatever a library makes of bytes that are no whole medium of this kind.
        """

    def pack(self, value: Any, rate: int | float | None = None) -> bytes:  # noqa: ANN401
        """Return the bytes of a file that this decoder reads, for a medium in memory.

        Args:
            value: The bytes themselves, a picture of Pillow, or an array or tensor of numbers.
            rate: Samples per second, in Hz, of a sound or a recording.

        Raises:
            MediaError: If there is no such file for it.
        """
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        return self._packed(value, rate)

    def _packed(self, value: Any, rate: int | float | None) -> bytes:  # noqa: ANN401
        stream = io.BytesIO()
        if isinstance(value, Image.Image):
            value.save(stream, "PNG")
        else:
            np.save(stream, as_array(value), allow_pickle=False)
        return stream.getvalue()

    def __call__(self, data: bytes, name: str) -> Media:
        """Decode ``data``; ``name`` is used in error messages only.

        Raises:
            MediaError: If the bytes are no whole medium of this kind, or one that cannot be used.
            PathWeaveError: If a library is needed and not installed.
        """
        try:
            return self.decode(data)
        except MediaError as error:
            raise MediaError(f"{name} {error}") from error
        except PathWeaveError:
            raise
        except Exception as error:  # Libraries let errors of every kind escape from broken files.
            reason = f"{type(error).__name__}: {error}"
            raise MediaError(
                f"{name} must be a whole {self.noun}, got {describe(data)} that cannot be decoded "
                f"({reason}); replace the file or declare the right decoder"
            ) from error
