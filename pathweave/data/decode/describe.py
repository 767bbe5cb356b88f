"""Says in a few words what some bytes are, for error messages."""

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
