import numpy as np
import pytest
from PIL import Image

from pathweave.data.decode.range_map import RangeMap
from pathweave.errors import MediaError
from tests.data.decode.files import encoded, huge_png, npy

MILLIMETRES = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)
GREY = [[0, 255], [191, 64]]


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(MILLIMETRES)),
        encoded(Image.fromarray(MILLIMETRES), "TIFF"),
        encoded(Image.fromarray(MILLIMETRES.astype(np.float32)), "TIFF"),
        encoded(Image.fromarray(MILLIMETRES.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray((MILLIMETRES // 20).astype(np.uint8))),
        npy(MILLIMETRES / 1000),
        npy(MILLIMETRES[None, :, :, None]),
    ],
)
def test_nearest_is_brightest(data):
    pixels = RangeMap()(data, "a").pixels
    assert pixels.shape == (1, 2, 2, 3)
    assert pixels[0, :, :, 0].tolist() == GREY
    assert (pixels[..., :1] == pixels).all()


def test_larger_is_nearer():
    pixels = RangeMap(larger_is="nearer")(npy(MILLIMETRES), "a").pixels
    assert pixels[0, :, :, 1].tolist() == [[0, 64], [128, 255]]


def test_not_finite_is_not_measured():
    pixels = RangeMap()(npy(np.array([[np.nan, 1.0, np.inf]])), "a").pixels
    assert pixels[0, 0, :, 0].tolist() == [0, 255, 0]


def test_one_pixel_and_flat_maps():
    assert (RangeMap()(npy(np.full((1, 1), 3.0)), "a").pixels == 255).all()


def test_nothing_measured():
    with pytest.raises(MediaError, match=r"x must hold at least one measurement, got only zeros"):
        RangeMap()(npy(np.zeros((2, 2))), "x")


def test_negative():
    with pytest.raises(MediaError, match=r"must hold distances above 0 .* got -2; shift or clip"):
        RangeMap()(npy(np.array([[1.0, -2.0]])), "x")


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3), (0, 5)])
def test_wrong_shape(shape):
    with pytest.raises(MediaError, match=r"must have the shape \[height, width\], got \["):
        RangeMap()(npy(np.ones(shape)), "x.npy")


def test_colours_are_refused():
    with pytest.raises(
        MediaError, match=r"one channel of distances, got a PNG .* RGB; .*'picture'"
    ):
        RangeMap()(encoded(Image.new("RGB", (2, 2))), "x.png")


@pytest.mark.parametrize("data", [b"", b"hello", npy(np.ones((4, 4)))[:150]])
def test_broken(data):
    with pytest.raises(MediaError, match=r"^x must "):
        RangeMap()(data, "x")


def test_truncated_picture():
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(1, 9999, (64, 64), dtype=np.uint16)))
    with pytest.raises(MediaError, match=r"^x must be a whole PNG picture"):
        RangeMap()(data[: len(data) // 2], "x")


def test_too_large():
    with pytest.raises(MediaError, match=r"at most 50,000,000 pixels, got"):
        RangeMap()(huge_png(20_000, 20_000), "x.png")
