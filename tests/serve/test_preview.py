import base64
import io

import numpy as np
import pytest
from PIL import Image

from pathweave.decoders import build_decoder
from pathweave.errors import MediaError
from pathweave.serve.page import look
from pathweave.serve.preview import preview
from pathweave.serve.sandbox import Sandbox
from tests.decoders.files import animation, encoded, npy, wav
from tests.serve.senses import DECODERS, files_of_all

MODALITIES = {name: build_decoder(kind, **options) for name, (kind, options) in DECODERS.items()}
KINDS = {
    "photo": "frames",
    "film": "frames",
    "noise": "sound",
    "range": "map",
    "shape": "points",
    "motion": "channels",
    "tilt": "map",
}


def opened(uri):
    head, data = uri.split(",")
    assert head.startswith("data:image/")
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("name", KINDS)
def test_a_medium_is_shown_by_what_its_decoder_gives(tmp_path, name):
    data = files_of_all(tmp_path)[name].read_bytes()
    assert preview(MODALITIES[name], data, name)["kind"] == KINDS[name]


def test_a_medium_is_shown_alike_through_a_sandbox(tmp_path):
    sandbox = Sandbox(1)
    try:
        for name, file in files_of_all(tmp_path).items():
            data, decoder = file.read_bytes(), MODALITIES[name]
            assert preview(sandbox.guard(decoder), data, name) == preview(decoder, data, name)
    finally:
        sandbox.close()


@pytest.mark.parametrize("name", [name for name in KINDS if name != "tilt"])
def test_a_file_is_taken_for_what_reads_it(tmp_path, name):
    """An array is the exception: a map, a cloud and a recording may be one, too."""
    file = files_of_all(tmp_path)[name]
    assert look(MODALITIES, file.read_bytes(), file.name)["modality"] == name


def test_a_file_that_nothing_reads_is_refused_with_all_reasons():
    with pytest.raises(MediaError, match=r"^a\.txt must be a medium .*as photo: .*as motion: "):
        look(MODALITIES, b"\0\1\2", "a.txt")
    with pytest.raises(MediaError, match="smell"):
        look(MODALITIES, b"", "a.txt", "smell")


def test_a_map_is_grey_from_far_to_near_with_the_limits_of_its_scale():
    data = encoded(Image.fromarray(np.array([[0, 500], [1000, 750]], dtype=np.uint16)))
    shown = preview(MODALITIES["range"], data, "a.png")
    assert shown["limits"] == (1000, 500)
    assert opened(shown["map"]).tolist() == [[0, 255], [64, 159]]
    nearer = build_decoder("range_map", larger_is="nearer")
    assert preview(nearer, data, "a.png")["limits"] == (500, 1000)


def test_large_media_are_shown_small(tmp_path):
    picture = encoded(Image.new("RGB", (2000, 1000)))
    [frame] = preview(MODALITIES["photo"], picture, "a")["frames"]
    assert opened(frame).shape == (256, 512, 3)
    shown = preview(build_decoder("clip", frames=40), animation(range(40), "GIF"), "a")
    assert (len(shown["frames"]), shown["caption"]) == (16, "40 frames of 6 x 4 pixels")
    shown = preview(MODALITIES["shape"], npy(np.random.default_rng(0).normal(size=(9000, 3))), "a")
    assert (len(shown["points"]), shown["caption"][:13]) == (4000, "9,000 points,")
    assert np.linalg.norm(shown["points"], axis=1).max() == pytest.approx(1, abs=1e-3)


def test_peaks_are_those_of_the_sound_and_its_wave_is_the_sound():
    import soundfile

    samples = np.zeros(4000)
    samples[1000], samples[3000] = 0.5, -0.25
    shown = preview(MODALITIES["noise"], wav(samples, 8000), "a.wav")
    lows, highs = np.array(shown["peaks"]).T
    assert [lows.argmin(), highs.argmax()] == [300, 100]
    assert [lows.min(), highs.max()] == pytest.approx([-0.25, 0.5], abs=1e-3)
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(shown["wave"].split(",")[1])))
    assert rate == 8000
    np.testing.assert_allclose(played, samples, atol=1e-4)


def test_channels_bear_their_names_and_leave_gaps_where_nothing_was_recorded():
    rows = "\n".join("0.5,1" if i < 500 else ",2" for i in range(1000))
    decoder = build_decoder("series", rate=50.0, channels=("x", "y"), gaps="mask")
    shown = preview(decoder, f"x,y\n{rows}\n".encode(), "a.csv")
    x, y = shown["channels"]
    assert (x["name"], y["name"], shown["seconds"]) == ("x", "y", 20.0)
    assert x["extremes"] == [(0.5, 0.5)] * 200 + [None] * 200
    assert y["extremes"] == [(1, 1)] * 200 + [(2, 2)] * 200


@pytest.mark.parametrize("values", [np.ones((4, 5)), np.array([[3e38, -3e38]])])
def test_any_array_is_shown(values):
    shown = preview(MODALITIES["tilt"], npy(values.astype(np.float32)), "a.npy")
    assert np.isfinite(shown["limits"]).all()
    assert opened(shown["map"]).shape == values.shape
    assert opened(shown["map"]).min() >= 64
