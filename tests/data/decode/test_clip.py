import numpy as np
import pytest
from PIL import Image

from pathweave.data.decode.clip import Clip, spaced
from pathweave.errors import MediaError
from tests.data.decode.files import animation, encoded, film, huge_png, wav


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_evenly_spaced_frames(kind):
    data = animation([0, 30, 60, 90, 120, 150, 180, 210], kind)
    pixels = Clip(frames=4)(data, "a").pixels
    assert pixels.shape == (4, 4, 6, 3)
    np.testing.assert_allclose(pixels[:, 0, 0, 0], [30, 90, 150, 210], atol=2)


@pytest.mark.parametrize("kind", ["mp4", "avi", "matroska"])
def test_films_give_evenly_spaced_frames(kind):
    pixels = Clip(frames=4)(film(20, kind=kind), "a").pixels
    assert pixels.shape == (4, 32, 32, 3)
    np.testing.assert_allclose(pixels[:, 9, 9, 0], [20, 70, 120, 170], atol=8)


def test_single_pictures_are_repeated():
    pixels = Clip(frames=3)(encoded(Image.new("L", (2, 2), 9), "JPEG"), "a").pixels
    assert pixels.shape == (3, 2, 2, 3)
    assert Clip(frames=3)(film(1), "a").pixels.shape == (3, 32, 32, 3)
    assert Clip(frames=5)(film(2), "a").pixels.shape == (5, 32, 32, 3)


def test_frame_indices():
    assert spaced(10, 1) == [5]
    assert spaced(3, 3) == [0, 1, 2]
    assert spaced(100, 4) == [12, 37, 62, 87]


@pytest.mark.parametrize("data", [b"", b"hello, I am a film", bytes(range(100))])
def test_mislabelled(data):
    with pytest.raises(MediaError, match=r"^x\.mp4 must be a whole clip .*; replace the file"):
        Clip()(data, "x.mp4")


def test_sound_alone_is_refused():
    with pytest.raises(MediaError, match=r"must have moving pictures, got WAVE .*'sound'"):
        Clip()(wav(np.zeros(1000)), "x.mp4")


@pytest.mark.parametrize("kind", ["mp4", "GIF", "WEBP", "PNG"])
def test_truncated(kind):
    data = film(20) if kind == "mp4" else animation(range(0, 240, 20), kind, size=(64, 64))
    with pytest.raises(MediaError, match=r"^x must (be a whole|have moving pictures)"):
        Clip()(data[: len(data) // 2], "x")


def test_too_large():
    with pytest.raises(MediaError, match=r"at most 1,000 pixels a frame, got 32 x 32; scale"):
        Clip(max_pixels=1_000)(film(2), "x.mp4")
    with pytest.raises(MediaError, match=r"at most 50,000,000 pixels, got"):
        Clip()(huge_png(20_000, 20_000), "x.png")
