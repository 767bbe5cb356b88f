import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pathweave.decoders.clip import Clip, shown, spaced
from pathweave.errors import MediaError
from tests.decoders.files import animation, case, encoded, film, huge_png, wav


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
    with pytest.raises(MediaError, match=r"at most 1,000 pixels, got 32 x 32; scale"):
        Clip(max_pixels=1_000)(film(2), "x.mp4")
    with pytest.raises(MediaError, match=r"at most 50,000,000 pixels, got"):
        Clip()(huge_png(20_000, 20_000), "x.png")


def test_a_name_in_another_encoding_does_not_stop_a_film():
    data = film(4)
    renamed = data.replace(b"VideoHandler", "Vid\u00e9o handler".encode("latin-1")[:12])
    assert renamed != data
    np.testing.assert_array_equal(Clip()(renamed, "a").pixels, Clip()(data, "a").pixels)


def greys(data: bytes, num_frames: int, row: int = 24, column: int = 32):
    return Clip(frames=num_frames)(data, "x").pixels[:, row, column, 0].astype(int)


IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("swaps", [False, True])
@pytest.mark.parametrize(("right", "down"), list(itertools.product((1, -1), repeat=2)))
def test_frames_are_turned_and_mirrored_by_the_matrix_in_the_file(swaps, right, down):
    data = case("base.mp4")
    turn = (0, down, right, 0) if swaps else (right, 0, 0, down)
    a, b, c, d = (number << 16 for number in turn)
    start, _, end = data.rpartition(IDENTITY)  # the last is that of the track
    turned = start + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + end
    plain = Clip()(data, "a").pixels
    expected = (plain.swapaxes(1, 2) if swaps else plain)[:, ::down, ::right]
    np.testing.assert_array_equal(Clip()(turned, "a").pixels, expected)


@pytest.mark.parametrize(("name", "quarters"), [("rot90.mp4", -1), ("rot180.mp4", 2)])
def test_films_of_a_turned_phone_are_upright(name, quarters):
    expected = np.rot90(Clip()(case("base.mp4"), "a").pixels, quarters, axes=(1, 2))
    np.testing.assert_array_equal(Clip()(case(name), "a").pixels, expected)


def test_only_frames_that_an_edit_list_shows_are_counted():
    # 20 stored frames; the last five are shown, and the last 15.
    five = greys(case("trimmed.mp4"), 5)
    assert (np.diff(five) > 5).all()
    assert greys(case("trimmed.mp4"), 4).tolist() == five[[0, 1, 3, 4]].tolist()
    fifteen = greys(case("ss0.5.mp4"), 15)
    assert (np.diff(fifteen) > 5).all()
    assert greys(case("ss0.5.mp4"), 4).tolist() == fifteen[[1, 5, 9, 13]].tolist()


def test_a_null_frame_shows_the_one_before_it_again():
    grey = greys(case("dropped.avi"), 12)
    assert grey[6] == grey[7] == grey[8]
    assert (np.diff(np.delete(grey, [7, 8])) > 5).all()


def test_a_frame_that_stands_for_long_is_chosen_for_long():
    # The ninth of ten frames is shown from 0.8 to 9.0 s of 9.1.
    grey = greys(case("vfr.mp4"), 91)
    assert len(set(grey[8:90])) == 1
    assert len(set(grey)) == 10
    assert set(greys(case("vfr.mp4"), 4)) == {grey[50]}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_pictures_count_as_long_as_they_are_shown(kind):
    first, *rest = (Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue"))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(
        first, kind, save_all=True, append_images=rest, duration=[500, 100, 200], **lossless
    )
    chosen = Clip(frames=8)(data, "a").pixels[:, 0, 0].argmax(axis=1)
    assert chosen.tolist() == [0, 0, 0, 0, 0, 1, 2, 2]


def test_the_picture_for_programs_without_animation_is_no_frame():
    first, *rest = (Image.new("RGB", (4, 4), colour) for colour in ("white", "red", "blue"))
    data = encoded(first, save_all=True, append_images=rest, default_image=True, duration=100)
    assert Clip(frames=2)(data, "a").pixels[:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]


@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([24, 25, 29.97, 30, 60, 7]))
def test_a_constant_rate_gives_evenly_spaced_indices_however_times_are_rounded(count, wanted, rate):
    for ticks in (1000, 600, 90_000):
        starts = [round(ticks * i / rate) + 77 for i in range(count)]
        end = starts[-1] + round(ticks / rate)
        assert shown(starts, end, wanted) == spaced(count, wanted)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 20))
def test_a_frame_shown_at_the_middle_of_its_time_is_chosen(durations, wanted):
    ends = list(itertools.accumulate(durations))
    chosen = shown([0, *ends[:-1]], ends[-1], wanted)
    if max(durations) - min(durations) > 2:
        for i, index in enumerate(chosen):
            middle = (2 * i + 1) * ends[-1] / (2 * wanted)
            assert ends[index] - durations[index] <= middle < ends[index] or (
                chosen == spaced(len(durations), wanted)
            )


@pytest.mark.parametrize("kind", ["TIFF", "MPO"])
def test_pages_are_frames_in_the_size_of_the_first(kind):
    first, *rest = (
        Image.new("RGB", size, colour)
        for size, colour in (((8, 8), "red"), ((8, 8), "lime"), ((16, 8), "blue"))
    )
    pixels = Clip(frames=3)(encoded(first, kind, save_all=True, append_images=rest), "a").pixels
    assert pixels.shape == (3, 8, 8, 3)
    assert pixels[:, 0, 0].argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("mp4", "mpeg4", {"movflags": "frag_every_frame+empty_moov+default_base_moof"}),
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("mov", "mpeg4", {}),
        ("avi", "libx264", {}),
        ("matroska", "libx264", {}),
        ("webm", "libvpx-vp9", {}),
        ("webm", "libvpx", {"live": "1"}),
        ("mpegts", "mpeg2video", {}),
        ("flv", "flv", {}),
        ("asf", "wmv2", {}),
    ],
)
def test_a_container_that_breaks_off_is_refused(kind, codec, options):
    data = film(20, kind=kind, codec=codec, rate=25, **options)
    np.testing.assert_allclose(greys(data, 4, 9, 9), [20, 70, 120, 170], atol=8)
    for end in range(401, len(data) - 200, 1 + len(data) // 19):
        # A transport stream that ends behind a packet is whole.
        end += kind == "mpegts" and end % 188 == 0
        with pytest.raises(MediaError, match=r"^x must (be a whole|have moving pictures)"):
            Clip()(data[:end], "x")
