from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file

from pathweave.storage.tensors import (
    HASHED_ONLY_IF_SET,
    hashed_settings,
    tensors_hash,
    write_tensors,
)


def test_a_view_is_written_as_it_looks(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2, 3).T})
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"y": torch.ones(2, 3)},
        {"x": torch.ones(3, 2)},
        {"x": torch.ones(2, 3).double()},
        {"x": torch.ones(2, 3), "y": torch.ones(1)},
        {"x": torch.ones(2, 3) + 1e-6},
        {},
    ],
)
def test_the_hash_tells_names_shapes_types_and_values_apart(other):
    assert tensors_hash(other) != tensors_hash({"x": torch.ones(2, 3)})


def test_the_hash_is_of_content_alone():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.bfloat16)}
    view = torch.arange(6.0).view(2, 3).T.contiguous().T.requires_grad_()
    assert tensors_hash({"b": tensors["b"], "a": view}) == tensors_hash(tensors)
    assert tensors_hash(tensors, seed="s") != tensors_hash(tensors)


@dataclass
class Settings:
    first: int = 1
    second: int = field(default=2, metadata=HASHED_ONLY_IF_SET)


def test_a_later_setting_counts_only_where_it_is_set():
    assert hashed_settings(Settings()) == {"first": 1}
    assert hashed_settings(Settings(3)) == {"first": 3}
    assert hashed_settings(Settings(1, 5)) == {"first": 1, "second": 5}
