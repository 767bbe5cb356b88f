"""Moving pictures: a few evenly spaced frames."""

import contextlib
import io
import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, chain, repeat
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field

from pathweave.decoders.decoder import Decoder, describe
from pathweave.decoders.picture import check_size, load_rgb, open_picture, packed, resized
from pathweave.decoders.whole import check_length
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError
from pathweave.extras import import_extra

_PILLOW_STARTS = (
    *(b"GIF8", b"\x89PNG", b"\xff\xd8\xff"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF
)

# What browsers do with a frame that states no time, in milliseconds.
_DEFAULT_DURATION = 100


class Clip(Decoder):
    """Decodes moving pictures to ``frames`` frames: those shown at the middles of equal times.

    Animated GIF, WebP and PNG and the pages of TIFF, each shown as long as the others, are read by
    Pillow, everything else by PyAV. A clip with fewer frames than asked for repeats some; a single
    picture is repeated. Frames are upright and of the size of the first, and only those that a
    player shows are counted. Of a long clip, only the chosen frames are kept in memory.

    Args:
        frames: How many frames to return.
        max_pixels: Largest accepted width times height; checked before decoding.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (6, 4), "red").save(stream, "GIF")
        >>> Clip(frames=4)(stream.getvalue(), "red.gif").pixels.shape
        (4, 4, 6, 3)
    """

    noun = "clip (GIF, WebP, MP4, WebM, ...)"
    frames: int = Field(default=4, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1, le=178_000_000)

    @property
    def fingerprint(self) -> str:
        """Return the kind and the number of frames."""
        return f"clip-2 frames={self.frames}"

    def decode(self, data: bytes) -> Frames:
        """Decode ``data``.

        Raises:
            MediaError: If they are no moving pictures, or have too many pixels.
            PathWeaveError: If PyAV is needed and not installed.
        """
        if data.startswith(_PILLOW_STARTS) or data[8:12] == b"WEBP":
            return self._from_pictures(data)
        return self._from_container(data)

    def _packed(self, value: Any, rate: int | float | None) -> bytes:  # noqa: ANN401
        return packed(value, "TIFF")

    def _from_pictures(self, data: bytes) -> Frames:
        picture = open_picture(data, self.max_pixels)
        chosen: dict[int, np.ndarray] = {}
        *starts, end = _picture_times(picture)
        wanted = shown(starts, end, self.frames)
        for index in dict.fromkeys(wanted):
            picture.seek(index)
            check_size(picture, self.max_pixels)
            chosen[index] = load_rgb(picture)
        shape = chosen[wanted[0]].shape
        return Frames(np.stack([resized(chosen[index], shape) for index in wanted]))

    def _from_container(self, data: bytes) -> Frames:
        av = import_extra("av", "clip")
        check_length(data)
        with _opened(av, data) as (container, stream):
            check_size(stream, self.max_pixels)
            starts, end, is_timed = _frame_times(container, stream)
        with _opened(av, data) as (container, stream):
            stream.thread_type = "AUTO"
            wanted = [starts[index] for index in shown(starts, end, self.frames)]
            timed = (
                (frame, frame.pts if is_timed and frame.pts is not None else start)
                for frame, start in zip(
                    container.decode(stream), chain(starts, repeat(end)), strict=False
                )
            )
            return Frames(_choose(timed, wanted))


def spaced(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` indices below ``count``: the middles of equal shares.

    Example:
        >>> spaced(8, 4), spaced(1, 3), spaced(2, 4)
        ([1, 3, 5, 7], [0, 0, 0], [0, 0, 1, 1])
    """
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def shown(starts: list[int], end: int, wanted: int) -> list[int]:
    """Return the indices of the frames that are shown at the middles of ``wanted`` equal times.

    Args:
        starts: When each frame begins, in rising order, in the unit to which times are rounded.
        end: When the last ends.
        wanted: How many indices.

    Example:
        >>> shown([0, 10, 20, 30], 40, 2), shown([0, 10, 11, 12], 40, 2)
        ([1, 3], [1, 3])
        >>> shown([0, 33, 67, 100], 133, 4), shown([0, 50], 60, 4)
        ([0, 1, 2, 3], [0, 0, 0, 1])
    """
    first, length = starts[0], end - starts[0]
    each = (starts[-1] - first) / (len(starts) - 1) if len(starts) > 1 else length
    # Rounded times of a constant rate would put a frame on the wrong side of a middle.
    rounding = min(1, each / 4) + 1e-6
    if all(abs(time - first - i * each) <= rounding for i, time in enumerate([*starts, end])):
        return spaced(len(starts), wanted)
    middles = (first + (2 * i + 1) * length / (2 * wanted) for i in range(wanted))
    return [bisect_right(starts, middle) - 1 for middle in middles]


@contextlib.contextmanager
def _opened(av: ModuleType, data: bytes) -> Iterator[tuple[Any, Any]]:
    # A title may be in any encoding, and nobody asks for it. PyAV 19 takes any, and no such option.
    takes_any = int(av.__version__.split(".")[0]) >= 19
    options = {} if takes_any else {"metadata_errors": "ignore"}
    with av.open(io.BytesIO(data), **options) as container:
        # PyAV's word for moving pictures.
        stream = container.streams.best("video")
        if stream is None:
            raise MediaError(
                f"must have moving pictures, got {describe(data)} without any; the file is "
                "truncated, or holds only sound: then declare the decoder 'sound'"
            )
        yield container, stream


def _frame_times(container: Any, stream: Any) -> tuple[list[int], int, bool]:  # noqa: ANN401
    """Return when each frame begins, when the last ends, and whether frames know their time."""
    # One packet holds one frame, and reading packets needs no decoding.
    packets = [
        (packet.pts, packet.dts, packet.duration or 0, packet.is_corrupt)
        for packet in container.demux(stream)
        if packet.size > 0 and not packet.is_discard
    ]
    if not packets or packets[-1][3]:
        raise ValueError(f"{len(packets)} frames, and not all of the last")
    decoded = [packet[1] for packet in packets if packet[1] is not None]
    # AVI has no display times, those of PyAV are a guess; and joined files begin again at zero.
    column = 1 if container.format.name == "avi" else 0
    starts = sorted(packet[column] for packet in packets if packet[column] is not None)
    if len(set(starts)) < len(packets) or decoded != sorted(decoded):
        return list(range(len(packets))), len(packets), False
    last = max(packets, key=lambda packet: packet[column])[2]
    each = (starts[-1] - starts[0]) // max(1, len(starts) - 1)
    return starts, starts[-1] + (last or each or 1), column == 0


def _choose(
    timed: Iterator[tuple[Any, int]], wanted: list[int]
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Return the frames that are shown at the times wanted, which rise."""
    chosen: list[np.ndarray] = []
    first = current = None
    # A decoder may hold back the last frames of a stream.
    for frame, start in chain(timed, [(None, math.inf)]):
        due = sum(time < start for time in wanted) - len(chosen)
        if current is not None and due > 0:
            chosen.extend([_rgb(current, first)] * due)
        if len(chosen) == len(wanted):
            return np.stack(chosen)
        first, current = first or frame, frame
    raise ValueError("no frame")


def _rgb(frame: Any, like: Any) -> UInt8[np.ndarray, "height width 3"]:  # noqa: ANN401
    pixels = frame.reformat(like.width, like.height, "rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    x_to_x, x_to_y, _, y_to_x, y_to_y = (int(number) for number in np.frombuffer(matrix, "i4")[:5])
    if abs(x_to_y) > abs(x_to_x):
        pixels, x_to_x, y_to_y = pixels.swapaxes(0, 1), y_to_x, x_to_y
    return np.ascontiguousarray(pixels[:: -1 if y_to_y < 0 else 1, :: -1 if x_to_x < 0 else 1])


def _picture_times(picture: Image.Image) -> list[int]:
    """Return when each picture of a file begins, and when the last ends."""
    # The unit to which times are rounded, in milliseconds.
    unit = {"GIF": 10, "WEBP": 1}.get(picture.format or "", 0.001)
    durations = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        picture.load()  # WebP tells the time only now, and here a truncated file breaks off.
        # The picture for programs that know no animation is no part of it.
        is_shown = index > 0 or not picture.info.get("default_image")
        milliseconds = picture.info.get("duration") or _DEFAULT_DURATION
        durations.append(round(milliseconds / unit) * is_shown)
    return list(accumulate(durations, initial=0))
