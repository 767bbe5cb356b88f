import io

import numpy as np
import pytest
from PIL import Image

from pathweave.decoders.picture import Picture
from pathweave.errors import MediaError
from tests.decoders.files import encoded, huge_png, npy, wav


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_formats(kind):
    pixels = Picture()(encoded(Image.new("RGB", (6, 4), (255, 0, 0)), kind), "a").pixels
    assert pixels.shape == (1, 4, 6, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[0, 0, 0], (255, 0, 0), atol=3)


def test_one_pixel():
    assert Picture()(encoded(Image.new("L", (1, 1), 7)), "a").pixels.tolist() == [[[[7, 7, 7]]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_on_white(mode):
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    assert (Picture()(encoded(picture, **options), "a").pixels == 255).all()


def test_sixteen_bits_are_scaled_not_clipped():
    picture = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert Picture()(encoded(picture), "a").pixels[0, 0, :, 0].tolist() == [0, 127, 255]


def test_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif)
    assert Picture()(data, "a").pixels.shape == (1, 6, 4, 3)


def test_floats_are_refused():
    picture = Image.fromarray(np.ones((2, 2), dtype=np.float32))
    with pytest.raises(MediaError, match=r"must have at most 16 bits .* 'range_map'"):
        Picture()(encoded(picture, "TIFF"), "a.tiff")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"hello, I am a picture", "text beginning 'hello"),
        (b"\x89PNG\r\n\x1a\n", "PNG data"),
        (wav(np.zeros(10)), "WAVE data"),
        (npy(np.zeros(3)), "NumPy data"),
        (b"<!DOCTYPE html><html>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (bytes(range(200, 240)), "40 bytes beginning c8 c9"),
    ],
)
def test_mislabelled(data, found):
    with pytest.raises(MediaError, match=rf"^x\.png must be a whole picture .* got .*{found}.*;"):
        Picture()(data, "x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated(kind):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(MediaError, match=r"x must be a whole"):
        Picture()(data[: len(data) // 2], "x")


@pytest.mark.parametrize("side", [8_000, 12_000, 20_000])
def test_too_large_is_refused_before_decoding(side):
    with pytest.raises(MediaError, match=r"must have at most 50,000,000 pixels, got .*scale it"):
        Picture()(huge_png(side, side), "x.png")


def test_max_pixels():
    with pytest.raises(MediaError, match="must have at most 20 pixels, got 6 x 4;"):
        Picture(max_pixels=20)(encoded(Image.new("L", (6, 4))), "x.png")


def test_formats_that_run_programs_are_refused():
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "EPS")
    with pytest.raises(MediaError, match="must be a pixel format, got EPS"):
        Picture()(stream.getvalue(), "x.eps")
