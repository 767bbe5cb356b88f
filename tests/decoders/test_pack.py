"""Media in memory: what a decoder makes of them is what it makes of the file they would be in."""

import io

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from pathweave.decoders import build_decoder
from pathweave.errors import MediaError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
WAVE = RANDOM.uniform(-0.9, 0.9, (800, 2)).astype(np.float32)
CLOUD = RANDOM.normal(size=(50, 3)).astype(np.float32)


def decoded(kind, value, at=None, **options):
    decoder = build_decoder(kind, **options)
    medium = decoder(decoder.pack(value, at), "memory")
    return next(v for v in vars(medium).values() if isinstance(v, np.ndarray))


@pytest.mark.parametrize(
    "kind", ["picture", "clip", "sound", "range_map", "points", "array", "series"]
)
def test_bytes_are_the_file(kind):
    decoder = build_decoder(kind, **({"rate": 1.0} if kind == "series" else {}))
    for data in (b"any", bytearray(b"any"), memoryview(b"any")):
        assert decoder.pack(data) == b"any"


@pytest.mark.parametrize(
    "picture", [PIXELS[0], torch.from_numpy(PIXELS[0]), Image.fromarray(PIXELS[0])]
)
def test_pictures(picture):
    assert (decoded("picture", picture) == PIXELS[:1]).all()


def test_grey_pictures():
    assert (decoded("picture", PIXELS[0, :, :, 0])[0] == PIXELS[0, :, :, :1]).all()


@pytest.mark.parametrize("frames", [PIXELS, list(PIXELS), [Image.fromarray(p) for p in PIXELS]])
def test_clips(frames):
    assert (decoded("clip", frames, frames=2) == PIXELS).all()


@pytest.mark.parametrize("sound", [WAVE, torch.from_numpy(WAVE), WAVE.astype(np.float64)])
def test_sounds_bring_their_rate(sound):
    stream = io.BytesIO()
    soundfile.write(stream, WAVE, 8000, format="WAV", subtype="FLOAT")
    options = {"rate": 4000, "seconds": 0.1}
    expected = decoded("sound", stream.getvalue(), **options)
    assert (decoded("sound", sound, 8000, **options) == expected).all()
    assert decoded("sound", WAVE[:, 0], 4000, **options).shape == (400,)


def test_arrays_clouds_recordings_and_maps():
    assert (decoded("array", torch.from_numpy(CLOUD).bfloat16()).shape) == (50, 3)
    assert (decoded("array", CLOUD) == CLOUD).all()
    assert (decoded("points", CLOUD, count=50).shape) == (50, 3)
    recording = build_decoder("series", rate=10.0, channels=3)
    assert (recording(recording.pack(CLOUD), "memory").values[0] == CLOUD).all()
    depth = Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 100)
    stream = io.BytesIO()
    depth.save(stream, "PNG")
    assert (decoded("range_map", depth) == decoded("range_map", stream.getvalue())).all()


def test_recordings_have_the_rate_of_the_decoder():
    decoder = build_decoder("series", rate=10.0, file_rate=20.0)
    assert decoder.pack(CLOUD, 20.0) == decoder.pack(CLOUD)
    with pytest.raises(MediaError, match="rate of the decoder, 20 Hz, got 10; resample"):
        decoder.pack(CLOUD, 10.0)


@pytest.mark.parametrize(
    ("kind", "value", "rate", "words"),
    [
        (
            "picture",
            PIXELS[0].astype(np.float32),
            None,
            r"uint8, got \[5, 7, 3\] of float32; scale",
        ),
        ("picture", PIXELS, None, r"got \[2, 5, 7, 3\] of uint8"),
        (
            "picture",
            "a.png",
            None,
            "must be bytes, an array or a tensor of numbers, got <class 'str'",
        ),
        ("clip", [], None, "must have a picture, got none"),
        ("clip", [b"x"], None, "must be bytes, an array"),
        (
            "sound",
            WAVE,
            None,
            r"with their rate in Hz, got \[800, 2\] of float32 at None; give both",
        ),
        ("sound", np.zeros(9, np.int16), 8000, "of int16 at 8000"),
        ("sound", WAVE, 0, "at 0; give both"),
        ("array", np.array(["a"]), None, "got an array of <U1; convert it"),
        ("points", object(), None, "got <class 'object'>"),
    ],
)
def test_what_is_no_medium_is_told(kind, value, rate, words):
    with pytest.raises(MediaError, match=words):
        build_decoder(kind).pack(value, rate)
