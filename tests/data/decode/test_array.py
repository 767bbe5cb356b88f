import numpy as np
import pytest
import torch
from safetensors.torch import save

from pathweave.data.decode.array import Values
from pathweave.errors import MediaError
from tests.data.decode.files import npy


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
