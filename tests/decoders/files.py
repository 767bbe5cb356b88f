"""Small media of every format, made in memory."""

import io
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

CASES = Path(__file__).parent / "cases"


def case(name: str) -> bytes:
    """A small file that no library at hand writes."""
    return (CASES / name).read_bytes()


def oriented(picture: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, kind, exif=exif)


def npy(values, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def animation(greys, kind: str, size=(6, 4)) -> bytes:
    pictures = [Image.new("RGB", size, (grey, grey, grey)) for grey in greys]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


def film(num_frames: int, size=(32, 32), kind: str = "mp4", codec="mpeg4", rate=10, **options):
    """A film whose grey rises by 10 a frame."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=kind, options=options) as container:
        track = container.add_stream(codec, rate=rate, width=size[0], height=size[1])
        track.pix_fmt = "yuv420p"
        for i in range(num_frames):
            pixels = np.full((size[1], size[0], 3), 10 * i, dtype=np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()


def wav(samples, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header claims any size, with a few bytes of data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def noise(shape, seed: int = 0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)
