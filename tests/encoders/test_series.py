import numpy as np
import pytest

from pathweave.encoders import build_encoder
from pathweave.encoders.media import Series
from pathweave.errors import MediaError, RecipeError


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
