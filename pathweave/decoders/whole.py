"""The length that a file states in its own framing, to tell a truncated file from a whole one."""

from typing import Literal

# What a program that writes to a pipe leaves as a size is 0 or near the largest number.
_LEAST_UNKNOWN = {4: 0x7FFF0000, 8: 1 << 62}

# The boxes that stand side by side in MP4 and its relatives.
_BOXES = b"ftyp styp moov moof mdat mfra sidx free skip wide uuid emsg prft pdin meta".split()
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_PACKET = 188


def check_length(data: bytes) -> None:
    """Check that a medium is not shorter than it says.

    Raises:
        ValueError: If it is.
    """
    if (stated := stated_length(data)) > len(data):
        raise ValueError(f"{len(data):,} bytes of {stated:,}")


def stated_length(data: bytes) -> int:
    """Return how many bytes a file must have by its own framing, or 0 where it does not say.

    The beginning of a file gives at most what the whole of it gives.
    """
    start = data[:4]
    if start in (b"RIFF", b"FORM"):
        size = known_size(data, 4, 4, "little" if start == b"RIFF" else "big")
        # Some writers count the eight bytes of the outer header, or one byte of padding.
        return max(0, size - 1)
    if start in (b"RF64", b"BW64"):
        return max(0, known_size(data, 20, 8) - 1)
    if start == b"riff":
        return known_size(data, 16, 8)
    if start == b".snd":
        size = known_size(data, 8, 4, "big")
        return size and size + int.from_bytes(data[4:8], "big")
    if start == b"caff":
        return _chunks_end(data)
    if start == b"OggS":
        return ogg_pages(data)[-1][1]
    return _film_length(data)


def known_size(
    data: bytes, at: int, width: Literal[4, 8], order: Literal["little", "big"] = "little"
) -> int:
    """Return the size that stands at a place, or 0 if the file was written to a pipe."""
    size = int.from_bytes(data[at : at + width], order)
    return 0 if size >= _LEAST_UNKNOWN[width] and size > len(data) else size


def ogg_pages(data: bytes) -> list[tuple[int, int]]:
    """Return where each page of an Ogg file begins and ends, up to the first that breaks off."""
    pages, at = [], 0
    while at < len(data) and b"OggS".startswith(data[at : at + 4]):
        lacing = data[at + 27 : at + 27 + data[at + 26]] if at + 26 < len(data) else b""
        end = at + 27 + max(1, len(lacing)) + sum(lacing)
        pages.append((at, end))
        at = end
    return pages


def _chunks_end(data: bytes) -> int:
    at, size = 8, 1
    while at + 12 <= len(data) and size:
        size = known_size(data, at + 4, 8, "big")
        at += 12 + size
    return at


def _film_length(data: bytes) -> int:
    if data[4:8] in _BOXES:
        return _boxes_end(data)
    if data.startswith(b"\x1aE\xdf\xa3"):
        return _elements_end(data)
    if data[: 3 * _PACKET : _PACKET] == b"GGG":  # the packets of a transport stream
        return -(-len(data) // _PACKET) * _PACKET
    if data.startswith(b"FLV"):
        at = 13
        while at < len(data):
            at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        return at
    if data.startswith(b"0&\xb2u") and (at := data.find(_ASF_FILE_PROPERTIES)) > 0:
        return known_size(data, at + 40, 8)
    return 0


def _boxes_end(data: bytes) -> int:
    at, kind = 0, b""
    while at < len(data):
        kind = data[at + 4 : at + 8]
        if len(kind) == 4 and kind not in _BOXES:
            return at  # What follows the film is not part of it.
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0 and len(kind) == 4:
            return len(data)
        at += max(8, size)
    # The frames of a fragment are in the box behind its description.
    return at + 8 * (kind == b"moof")


def _elements_end(data: bytes) -> int:
    at = 0
    while at < len(data) and data[at]:
        at += 9 - data[at].bit_length()  # the element's name
        width = 9 - data[at].bit_length() if at < len(data) else 1
        unknown = (1 << 7 * width) - 1
        size = int.from_bytes(data[at : at + width], "big") & unknown
        # Elements of unknown size are entered, others are passed over.
        at += width + (size if size < unknown and at + width <= len(data) else 0)
    return at
