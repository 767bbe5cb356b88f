"""Moving pictures: a few evenly spaced frames."""

import contextlib
import io
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import BaseModel, Field

from pathweave.data.decode.describe import describe
from pathweave.data.decode.picture import load_rgb, open_picture
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError
from pathweave.extras import import_extra

_PILLOW_STARTS = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff")


class Clip(BaseModel, frozen=True, extra="forbid"):
    """Decodes moving pictures to ``frames`` frames, each the middle of an equal share of the clip.

    Animated GIF, WebP and PNG are read by Pillow, everything else by PyAV. A clip with fewer
    frames than asked for repeats some; a single picture is repeated. The whole clip is decoded
    once, in order, and only the chosen frames are kept.

    Args:
        frames: How many frames to return.
        max_pixels: Largest accepted width times height; checked before decoding.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (6, 4), "red").save(stream, "GIF")
        >>> Clip(frames=4)(stream.getvalue(), "red.gif").pixels.shape
        (4, 4, 6, 3)
    """

    frames: int = Field(default=4, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1, le=178_000_000)

    @property
    def fingerprint(self) -> str:
        """Return the kind and the number of frames."""
        return f"clip-1 frames={self.frames}"

    def __call__(self, data: bytes, name: str) -> Frames:
        """Decode ``data``.

        Raises:
            MediaError: If the bytes are not a whole clip, or it has too many pixels.
            PathWeaveError: If PyAV is needed and not installed.
        """
        if data.startswith(_PILLOW_STARTS) or data[8:12] == b"WEBP":
            return self._from_pictures(data, name)
        return self._from_container(data, name)

    def _from_pictures(self, data: bytes, name: str) -> Frames:
        picture = open_picture(data, name, self.max_pixels)
        wanted = spaced(_num_frames(picture, name), self.frames)
        chosen = {}
        for index in wanted:
            if index not in chosen:
                _seek(picture, index, name)
                chosen[index] = load_rgb(picture, name)
        return Frames(np.stack([chosen[index] for index in wanted]))

    def _from_container(self, data: bytes, name: str) -> Frames:
        av = import_extra("av", "clip")
        try:
            wanted = spaced(_num_packets(av, data, name), self.frames)
            with _opened(av, data, name) as (container, stream):
                self._check_size(stream.width, stream.height, name)
                stream.thread_type = "AUTO"
                return Frames(_choose(container.decode(stream), wanted, name))
        except av.FFmpegError as error:
            raise MediaError(
                f"{name} must be a whole clip (GIF, WebP, MP4, WebM, ...), got {describe(data)} "
                f"that cannot be decoded ({error.strerror}); replace the file or declare the right "
                "decoder"
            ) from error

    def _check_size(self, width: int, height: int, name: str) -> None:
        if width * height > self.max_pixels:
            raise MediaError(
                f"{name} must have at most {self.max_pixels:,} pixels a frame, got {width} x "
                f"{height}; scale it down, or raise max_pixels of its decoder"
            )


def spaced(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` indices below ``count``: the middles of equal shares.

    Example:
        >>> spaced(8, 4), spaced(1, 3), spaced(2, 4)
        ([1, 3, 5, 7], [0, 0, 0], [0, 0, 1, 1])
    """
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


@contextlib.contextmanager
def _opened(av: ModuleType, data: bytes, name: str) -> Iterator[tuple[Any, Any]]:
    with av.open(io.BytesIO(data)) as container:
        # PyAV's word for moving pictures.
        stream = container.streams.best("video")
        if stream is None:
            raise MediaError(
                f"{name} must have moving pictures, got {describe(data)} without any; the file "
                "is truncated, or holds only sound: then declare the decoder 'sound'"
            )
        yield container, stream


def _num_packets(av: ModuleType, data: bytes, name: str) -> int:
    # One packet holds one frame, and counting packets needs no decoding.
    with _opened(av, data, name) as (container, stream):
        count = sum(packet.size > 0 for packet in container.demux(stream))
    if count < max(stream.frames, 1):
        raise _broken(name, f"{count} frames of {stream.frames}")
    return count


def _choose(
    decoded: Iterator[Any],
    wanted: list[int],
    name: str,
) -> UInt8[np.ndarray, "frames height width 3"]:
    chosen: list[np.ndarray] = []
    for index, frame in enumerate(decoded):
        if copies := wanted.count(index):
            height, width = chosen[0].shape[:2] if chosen else (frame.height, frame.width)
            rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            chosen.extend([rgb] * copies)
        if len(chosen) == len(wanted):
            break
    if not chosen:
        raise _broken(name, "no frame can be decoded")
    # A decoder may hold back the last frames of a stream.
    return np.stack(chosen + [chosen[-1]] * (len(wanted) - len(chosen)))


def _num_frames(picture: Image.Image, name: str) -> int:
    try:
        return getattr(picture, "n_frames", 1)
    except Exception as error:  # Pillow lets errors of every kind escape from broken files.
        raise _broken(name, str(error)) from error


def _seek(picture: Image.Image, index: int, name: str) -> None:
    try:
        picture.seek(index)
    except Exception as error:
        raise _broken(name, str(error)) from error


def _broken(name: str, found: str) -> MediaError:
    return MediaError(
        f"{name} must be a whole clip, got one that breaks off or is damaged ({found}); copy "
        "or write the file again"
    )
