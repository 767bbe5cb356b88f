import numpy as np
import pytest

from pathweave.encoders.media import Array, Frames, Waveform


@pytest.mark.parametrize(
    "make",
    [
        lambda: Frames(np.zeros((4, 6, 3), dtype=np.uint8)),
        lambda: Frames(np.zeros((1, 4, 6, 3), dtype=np.float32)),
        lambda: Waveform(np.zeros((2, 8), dtype=np.float32), rate=8),
        lambda: Array(np.zeros((3, 8), dtype=np.float64)),
    ],
)
def test_shapes_and_dtypes_are_checked_in_tests(make):
    with pytest.raises(TypeError):
        make()
