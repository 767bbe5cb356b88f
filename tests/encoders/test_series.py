import io

import numpy as np
import pytest

from pathweave.decoders import build_decoder
from pathweave.encoders import build_encoder
from pathweave.encoders.media import Series
from pathweave.errors import MediaError, RecipeError
from pathweave.nn.patches import PatchEncoder, PatchSpec


def test_values_and_where_they_are_stand_side_by_side():
    values = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    values[1, 2, 0] = np.nan
    [features] = build_encoder("series", channels=2)([Series(values, 10.0)])
    assert features.shape == (2, 3, 4)
    assert features[1, 2].tolist() == [0.0, 11.0, 0.0, 1.0]
    assert features[0].tolist() == [[0, 1, 1, 1], [2, 3, 1, 1], [4, 5, 1, 1]]


def test_another_number_of_channels_is_refused():
    series = Series(np.zeros((1, 3, 2), np.float32), 10.0)
    with pytest.raises(MediaError, match="must have 3 channels, got 2; name them"):
        build_encoder("series", channels=3)([series])
    with pytest.raises(RecipeError, match="channels must be positive, got 0"):
        build_encoder("series", channels=0)


def test_the_number_of_channels_is_part_of_the_fingerprint():
    one, two = (build_encoder("series", channels=n) for n in (1, 2))
    assert (one.width, two.width) == (2, 4)
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize(("seconds", "windows", "patches"), [(60, 10, 751), (600, 1, 7501)])
def test_ten_minutes_of_nine_channels_at_100_hz_become_a_token_a_patch(seconds, windows, patches):
    values = np.random.default_rng(0).normal(size=(60_000, 9)).astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, values)
    decoder = build_decoder("series", rate=100.0, seconds=seconds, windows=windows)
    [units] = build_encoder("series", channels=9)([decoder(stream.getvalue(), "a.npy")])
    assert np.array_equal(units[..., :9].reshape(-1, 9).numpy(), values)
    encoder = PatchEncoder(PatchSpec(length=16, stride=8, width=16, layers=1), channels=9)
    encoder.measure([*units])
    tokens = encoder([*units])
    assert [(*each.shape,) for each in tokens] == [(patches, 16)] * windows
    assert all(each.isfinite().all() for each in tokens)
