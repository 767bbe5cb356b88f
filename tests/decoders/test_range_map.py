import io
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps

from pathweave.decoders.pair import pack_pair
from pathweave.decoders.range_map import RangeMap
from pathweave.errors import MediaError
from tests.decoders.files import encoded, huge_png, npy, oriented

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
    with pytest.raises(MediaError, match=r"x must hold at least one measurement, got zeros"):
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
    with pytest.raises(MediaError, match=r"^x must be a whole map .* got PNG data"):
        RangeMap()(data[: len(data) // 2], "x")


def test_too_large():
    with pytest.raises(MediaError, match=r"at most 50,000,000 pixels, got"):
        RangeMap()(huge_png(20_000, 20_000), "x.png")


COLOURS = encoded(Image.new("RGB", (2, 2), (10, 20, 30)))


def test_a_pair_is_the_picture_and_then_the_map():
    pixels = RangeMap(pair=True)(pack_pair(COLOURS, npy(MILLIMETRES)), "a").pixels
    assert pixels.shape == (2, 2, 2, 3)
    assert (pixels[0] == [10, 20, 30]).all()
    assert pixels[1, :, :, 0].tolist() == GREY


def test_the_map_of_a_pair_alone_is_the_map():
    pair, alone = pack_pair(COLOURS, npy(MILLIMETRES)), npy(MILLIMETRES)
    for decode in (RangeMap(), RangeMap(scaling="none")):
        data = (pair, alone) if decode.scaling == "own" else (pack_pair(b"", COLOURS), COLOURS)
        np.testing.assert_array_equal(*(decode(each, "a").pixels for each in data))


def test_the_map_gets_the_size_of_the_picture():
    picture = encoded(Image.new("RGB", (8, 4), "red"))
    pixels = RangeMap(pair=True)(pack_pair(picture, npy(np.full((6, 6), 2.0))), "a").pixels
    assert pixels.shape == (2, 4, 8, 3)
    assert (pixels[1] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_without_scaling_a_picture_is_taken_as_it_is(mode):
    grey = Image.fromarray(np.array([[0, 7], [100, 255]], dtype=np.uint8)).convert(mode)
    pixels = RangeMap(scaling="none")(encoded(grey), "a").pixels
    assert pixels[0, :, :, 0].tolist() == [[0, 7], [100, 255]]
    sixteen = Image.fromarray(np.array([[0, 257], [514, 65535]], dtype=np.uint16))
    cut = RangeMap(scaling="none")(encoded(sixteen), "a").pixels
    assert cut[0, :, :, 2].tolist() == [[0, 1], [2, 255]]


def test_a_users_own_archive_is_a_pair():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chair/", b"")
        archive.writestr("chair/colours.png", COLOURS)
        archive.writestr("chair/distances.npy", npy(MILLIMETRES))
    assert RangeMap(pair=True)(stream.getvalue(), "a").pixels[1, :, :, 0].tolist() == GREY


def test_a_pair_needs_a_companion():
    with pytest.raises(MediaError, match=r"x must have a companion, .* got NumPy data .* alone;"):
        RangeMap(pair=True)(npy(MILLIMETRES), "x")


def test_a_broken_companion():
    with pytest.raises(MediaError, match=r"^x has a companion, which must be a whole picture"):
        RangeMap(pair=True)(pack_pair(b"hello", npy(MILLIMETRES)), "x")


def test_an_archive_of_other_contents():
    stream = io.BytesIO()
    np.savez(stream, one=MILLIMETRES)
    with pytest.raises(MediaError, match=r"an archive of two files .* got 1 of .* bytes; name"):
        RangeMap()(stream.getvalue(), "x")


@pytest.mark.parametrize("end", [10, -30])
def test_a_truncated_archive(end):
    with pytest.raises(MediaError, match=r"x must be a whole map .*, got a ZIP"):
        RangeMap()(pack_pair(COLOURS, npy(MILLIMETRES))[:end], "x")


def test_fingerprints_differ_by_every_setting_and_stay_for_the_defaults():
    assert RangeMap().fingerprint == "range_map-2 larger_is=farther"
    settings = [{}, {"pair": True}, {"scaling": "none"}, {"larger_is": "nearer"}]
    assert len({RangeMap(**setting).fingerprint for setting in settings}) == 4


LYING = 100 * np.arange(1, 16, dtype=np.uint16).reshape(3, 5)


def upright(picture: Image.Image, orientation: int):
    return ImageOps.exif_transpose(Image.open(io.BytesIO(oriented(picture, orientation))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_map_is_turned_as_its_own_file_says(orientation):
    data = oriented(Image.fromarray(LYING), orientation)
    expected = RangeMap()(npy(np.asarray(upright(Image.fromarray(LYING), orientation))), "a")
    np.testing.assert_array_equal(RangeMap()(data, "a").pixels, expected.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "png with its own", "npy", "unscaled"])
def test_the_picture_and_the_map_of_a_pair_are_turned_alike(orientation, kind):
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8))
    scaling = "none" if kind == "unscaled" else "own"
    grey = Image.fromarray(LYING)
    medium = {
        "npy": npy(LYING),
        "png with its own": oriented(grey, orientation),
    }.get(kind, encoded(grey))
    data = pack_pair(oriented(colours, orientation), medium)
    pixels = RangeMap(pair=True, scaling=scaling)(data, "a").pixels
    np.testing.assert_array_equal(pixels[0], np.asarray(upright(colours, orientation)))
    turned = encoded(upright(grey, orientation))
    np.testing.assert_array_equal(pixels[1], RangeMap(scaling=scaling)(turned, "a").pixels[0])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_map_that_was_saved_upright_is_not_turned_again(orientation):
    picture = oriented(Image.new("RGB", (5, 3)), orientation)
    standing = npy(np.ascontiguousarray(LYING.T))
    pixels = RangeMap(pair=True)(pack_pair(picture, standing), "a").pixels
    np.testing.assert_array_equal(pixels[1], RangeMap()(standing, "a").pixels[0])


@pytest.mark.parametrize(
    "data",
    [encoded(Image.fromarray(MILLIMETRES)), npy(np.array([[np.nan, 4000, 1000, np.inf]]))],
)
def test_the_limits_of_a_map_are_in_its_own_unit(data):
    assert RangeMap().limits(data) == (1000, 4000)
    assert RangeMap(pair=True).limits(pack_pair(b"any", data)) == (1000, 4000)
