import sys

import numpy as np
import pytest

from pathweave.decoders import Decoder, build_decoder
from pathweave.errors import PathWeaveError, RecipeError
from tests.decoders.files import film, wav

KINDS = ("picture", "clip", "sound", "range_map", "points", "array")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_decoder(kind):
    decoder = build_decoder(kind)
    assert isinstance(decoder, Decoder)
    assert decoder.fingerprint.startswith(kind)
    assert decoder.fingerprint == build_decoder(kind).fingerprint


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("clip", {"frames": 5}),
        ("sound", {"rate": 8_000}),
        ("sound", {"seconds": 3.0}),
        ("range_map", {"larger_is": "nearer"}),
        ("points", {"views": 2}),
        ("points", {"size": 64}),
        ("points", {"max_points": 10}),
        ("points", {"up": "z"}),
    ],
)
def test_every_setting_that_changes_the_output_is_in_the_fingerprint(kind, options):
    assert build_decoder(kind, **options).fingerprint != build_decoder(kind).fingerprint


def test_unknown_kind():
    with pytest.raises(
        RecipeError, match=r"must be one of \[.*picture.*\], got 'sounds'.*'sound'\?"
    ):
        build_decoder("sounds")


def test_unknown_option():
    with pytest.raises(
        RecipeError,
        match=r"one of \['pad', 'rate', 'seconds', 'windows'\], got 'second'; .*'seconds'\?",
    ):
        build_decoder("sound", second=2)


@pytest.mark.parametrize(
    ("value", "rule"),
    [(0, "greater than or equal to 1"), ("many", "a valid integer"), (None, "a valid integer")],
)
def test_wrong_value(value, rule):
    with pytest.raises(
        RecipeError, match=rf"^decoder 'clip': frames: must be {rule}.*, got {value!r}; correct"
    ):
        build_decoder("clip", frames=value)


@pytest.mark.parametrize(
    ("kind", "data", "library", "extra"),
    [
        ("sound", wav(np.zeros(5), 8_000), "soundfile", "sound"),
        ("sound", wav(np.zeros(5), 8_000), "soxr", "sound"),
        ("clip", film(1), "av", "clip"),
        ("points", b"ply\n", "trimesh", "mesh"),
    ],
)
def test_missing_library_names_the_extra(kind, data, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PathWeaveError, match=rf"^{library} must be .*'pathweave\[{extra}\]'"):
        build_decoder(kind)(data, "x")
