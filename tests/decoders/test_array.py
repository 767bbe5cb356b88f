import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from pathweave.decoders.array import Values, read_npy
from pathweave.encoders.media import Array
from pathweave.errors import MediaError
from tests.decoders.files import npy


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "?"])
def test_npy(dtype):
    values = Values()(npy(np.ones((3, 8), dtype=dtype)), "a").values
    assert values.dtype == np.float32
    assert values.tolist() == np.ones((3, 8)).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_safetensors(dtype):
    values = Values(width=8)(save({"x": torch.ones(3, 8, dtype=dtype)}), "a").values
    assert values.tolist() == np.ones((3, 8)).tolist()


def test_one_axis_becomes_one_token():
    assert Values()(npy(np.ones(8)), "a").values.shape == (1, 8)


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 8), (3, 0), (0,)])
def test_wrong_shape(shape):
    with pytest.raises(MediaError, match=r"x must have the shape \[tokens, width\] or"):
        Values()(npy(np.ones(shape)), "x")


def test_wrong_width():
    with pytest.raises(MediaError, match=r"must have 4 numbers a token, got 8; correct the width"):
        Values(width=4)(npy(np.ones((3, 8))), "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_not_finite(value):
    with pytest.raises(MediaError, match=r"must hold finite numbers, got NaN or infinity"):
        Values()(npy(np.array([1.0, value])), "x")


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", save({"x": torch.ones(9)})[:-5]])
def test_broken(data):
    with pytest.raises(MediaError, match=r"x must be a whole \.npy or safetensors file, got"):
        Values()(data, "x")


def test_several_tensors():
    data = save({"b": torch.ones(2), "a": torch.ones(2)})
    with pytest.raises(MediaError, match=r"must hold one tensor, got 2 \(a, b\); save one"):
        Values()(data, "x")


def test_complex():
    with pytest.raises(MediaError, match=r"must hold real numbers, got torch\.complex64"):
        Values()(save({"a": torch.ones(2, dtype=torch.complex64)}), "x")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "u1", "i8", "?"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 3), (2, 3, 4)])
def test_npy_is_read_as_numpy_does(shape, dtype, order):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype, order=order)
    np.testing.assert_array_equal(read_npy(npy(values)), values)


def test_pickled_objects_are_refused():
    with pytest.raises(MediaError, match=r"must hold real numbers, got pickled Python objects;"):
        read_npy(npy(np.array([{}, None]), allow_pickle=True))


@pytest.mark.parametrize("values", [np.ones(2, complex), np.array(["a"]), np.zeros(2, "i4,f4")])
def test_other_dtypes_are_refused(values):
    with pytest.raises(MediaError, match=r"must hold real numbers, got dtype"):
        read_npy(npy(values))


def test_a_truncated_npy():
    with pytest.raises(MediaError, match=r"x must be a whole \.npy .* NumPy .* 700 bytes of 800"):
        Values()(npy(np.zeros(100))[:-100], "x")


def test_an_npy_header_that_claims_too_much():
    honest = npy(np.zeros(1, dtype=np.uint8))
    lie = honest.replace(b"(1,), }" + b" " * 14, b"(9999999999, 999), }" + b" ", 1)
    assert len(lie) == len(honest)
    with pytest.raises(MediaError, match=r"1 bytes of 9,989,999,999,001"):
        Values()(lie, "x")


def test_a_broken_npy_header():
    with pytest.raises(
        MediaError, match=r"x must be a whole \.npy or safetensors file, got NumPy data"
    ):
        Values()(npy(np.zeros(3)).replace(b"descr", b"{{{{{"), "x")


@settings(max_examples=200, deadline=None)
@given(st.integers(6, 130), st.binary(min_size=1, max_size=4))
def test_damage_never_raises_anything_else(place, garbage):
    data = bytearray(npy(np.ones((2, 3), dtype=np.float32)))
    data[place : place + len(garbage)] = garbage
    with contextlib.suppress(MediaError):
        assert isinstance(Values()(bytes(data), "x"), Array)
