"""Sounds made ready for libsndfile: joined files taken apart, lengths it would guess written in."""

import io
import zlib
from itertools import pairwise
from typing import Any

from pathweave.decoders.whole import known_size, ogg_pages

# Where the chunks of a container begin, the widths of their names and sizes, and their byte order.
_CHUNKS: dict[bytes, tuple[int, int, Any, Any]] = {
    b"RIFF": (12, 4, 4, "little"),
    b"RF64": (12, 4, 4, "little"),
    b"BW64": (12, 4, 4, "little"),
    b"riff": (40, 16, 8, "little"),
    b"caff": (8, 4, 8, "big"),
}

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# MP3: thousands of bits per second by their index, for MPEG-1 and for its half and quarter rates.
_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MOST_KILOBITS_RATIO = 20
_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
# Without a tag before the first frame, libsndfile opens some files only by luck.
_ID3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)


class _Endless(io.BytesIO):
    """Bytes that seem to be more than they are.

    Of an MP3 file without a tag, libsndfile takes the length of the file and of its first frame to
    guess how many samples there are, and reads no more than that.
    """

    _is_at_end = False

    def seek(self, offset: int, whence: int = 0) -> int:
        self._is_at_end = (offset, whence) == (0, io.SEEK_END)
        return super().seek(offset, whence)

    def tell(self) -> int:
        return super().tell() * (_MOST_KILOBITS_RATIO if self._is_at_end else 1)


def pieces(data: bytes) -> list[io.BytesIO]:
    """Return the sounds that follow each other in a file, each with its length in its header.

    Raises:
        ValueError: If an MP3 file has fewer frames than it says.
    """
    if data[:4] == b"OggS":
        return [io.BytesIO(link) for link in _ogg_links(data)]
    if data[:4] in _CHUNKS:
        return [io.BytesIO(_with_sizes(data))]
    return _mp3_files(data) or [io.BytesIO(data)]


def _ogg_links(data: bytes) -> list[bytes]:
    """Cut a chained Ogg file, and mark the end of links that a recorder did not finish."""
    pages = [at for at, _ in ogg_pages(data)]
    is_first = [bool(data[at + 5] & 2) for at in pages]
    starts = [i for i in range(len(pages)) if is_first[i] and (i == 0 or not is_first[i - 1])]
    links = []
    for first, after in pairwise([*starts, len(pages)]):
        last, end = pages[after - 1], pages[after] if after < len(pages) else len(data)
        page = data[last:end]
        if not page[5] & 4:
            page = page[:5] + bytes([page[5] | 4]) + page[6:22] + bytes(4) + page[26:]
            page = page[:22] + _ogg_checksum(page) + page[26:]
        links.append(data[pages[first] : last] + page)
    return links or [data]


def _ogg_checksum(page: bytes) -> bytes:
    # That of zlib with the bits of every byte and of the result in reverse, and nothing inverted.
    reverse = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2).to_bytes(4, "little")


def _with_sizes(data: bytes) -> bytes:
    """Write the sizes into the header of a file that was written to a pipe."""
    at, name_width, width, order = _CHUNKS[data[:4]]
    is_wave64 = data[:4] == b"riff"
    while data[at : at + 4] != b"data":
        size = int.from_bytes(data[at + name_width : at + name_width + width], order)
        at += size + -size % 8 if is_wave64 else name_width + width + size + size % 2 * (width == 4)
        if at >= len(data) or (is_wave64 and size < 24):
            return data
    body = at + name_width + width
    if data[:4] in (b"RF64", b"BW64"):
        if known_size(data, 28, 8):
            return data
        sizes = (len(data) - 8).to_bytes(8, "little") + (len(data) - body).to_bytes(8, "little")
        return data[:20] + sizes + data[36:]
    if known_size(data, at + name_width, width, order) or (
        # A sound without samples, in a file that knows its own length.
        data[:4] == b"RIFF" and known_size(data, 4, 4) + 8 > body
    ):
        return data
    size = len(data) - (at if is_wave64 else body)
    data = data[: at + name_width] + size.to_bytes(width, order) + data[body:]
    return data[:16] + len(data).to_bytes(8, "little") + data[24:] if is_wave64 else data


def _mp3_files(data: bytes) -> list[io.BytesIO]:
    """Cut joined MP3 files apart, and drop what is no frame of theirs."""
    frames = _mp3_frames(data)
    is_cut = bool(frames) and len(frames[-1]) < _mp3_length(frames[-1])
    files: list[tuple[int | None, list[bytes]]] = []
    for frame in frames[: len(frames) - is_cut]:
        if (at := _mp3_tag(frame)) or not files or len(files[-1][1]) - 1 == files[-1][0]:
            is_counted = at and frame[at + 7] & 1
            count = int.from_bytes(frame[at + 8 : at + 12], "big") if is_counted else None
            files.append((count, []))
        files[-1][1].append(frame)
    for count, members in files:
        # Some programs count the tag's own frame.
        if count is not None and len(members) - 1 < count - (not is_cut):
            raise ValueError(f"{len(members) - 1:,} frames of {count:,}")
    return [
        (_Endless if count is None else io.BytesIO)(_ID3 + b"".join(members))
        for count, members in files
    ]


def _mp3_tag(frame: bytes) -> int:
    """Return where the tag that counts the frames of a file stands in its first one, or 0."""
    is_mono, is_first_version = frame[3] >> 6 == 3, frame[1] >> 3 & 3 == 3
    at = 4 + ((17 if is_mono else 32) if is_first_version else (9 if is_mono else 17))
    return at if frame[at : at + 4] in (b"Xing", b"Info") else 0


def _mp3_frames(data: bytes) -> list[bytes]:
    frames: list[bytes] = []
    at, is_in_step = 0, False
    while data[at : at + 3] == b"ID3":
        at += 10 + sum((data[at + 6 + i] & 127) << (21 - 7 * i) for i in range(4))
    while 0 <= at < len(data):
        length = _mp3_length(data[at : at + 4])
        # What looks like a frame may be chance, unless a frame is before it or behind it.
        if length and (is_in_step or _mp3_length(data[at + length : at + length + 4])):
            frames.append(data[at : at + length])
            at, is_in_step = at + length, True
        elif not frames and data[at] not in (0, 0xFF):
            break
        else:
            at, is_in_step = data.find(b"\xff", at + 1), False
    return frames


def _mp3_length(header: bytes) -> int:
    """Return how many bytes the frame with this header has, or 0 if it is none of MP3."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return 0
    kilobits = _KILOBITS[version == 3][bits]
    return (144_000 if version == 3 else 72_000) * kilobits // _HERTZ[version][rate] + (
        header[2] >> 1 & 1
    )
