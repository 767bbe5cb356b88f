import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.decode.npy import read_npy
from pathweave.errors import MediaError
from tests.data.decode.files import npy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "u1", "i8", "?"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 3), (2, 3, 4)])
def test_same_as_numpy(shape, dtype, order):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype, order=order)
    np.testing.assert_array_equal(read_npy(npy(values), "x"), values)


def test_pickled_objects_are_refused():
    with pytest.raises(MediaError, match=r"x must hold real numbers, got pickled Python objects;"):
        read_npy(npy(np.array([{}, None]), allow_pickle=True), "x")


@pytest.mark.parametrize("values", [np.ones(2, complex), np.array(["a"]), np.zeros(2, "i4,f4")])
def test_other_dtypes_are_refused(values):
    with pytest.raises(MediaError, match=r"must hold real numbers, got dtype"):
        read_npy(npy(values), "x")


def test_truncated():
    with pytest.raises(MediaError, match=r"must hold 800 bytes .* got 700; the file is truncated"):
        read_npy(npy(np.zeros(100))[:-100], "x")


def test_header_that_claims_too_much():
    honest = npy(np.zeros(1, dtype=np.uint8))
    lie = honest.replace(b"(1,), }" + b" " * 14, b"(9999999999, 999), }" + b" ", 1)
    assert len(lie) == len(honest)
    with pytest.raises(MediaError, match=r"the file is truncated"):
        read_npy(lie, "x")


def test_not_npy():
    with pytest.raises(MediaError, match=r"must be a NumPy \.npy file, got an empty file"):
        read_npy(b"", "x")


def test_broken_header():
    with pytest.raises(MediaError, match=r"must have a readable \.npy header"):
        read_npy(npy(np.zeros(3)).replace(b"descr", b"{{{{{"), "x")


@settings(max_examples=200, deadline=None)
@given(st.integers(6, 130), st.binary(min_size=1, max_size=4))
def test_damage_never_raises_anything_else(place, garbage):
    data = bytearray(npy(np.ones((2, 3), dtype=np.float32)))
    data[place : place + len(garbage)] = garbage
    with contextlib.suppress(MediaError):
        assert isinstance(read_npy(bytes(data), "x"), np.ndarray)
