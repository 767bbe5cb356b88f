import sys
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pathweave.errors import RunError
from pathweave.storage.tensors import (
    HASHED_ONLY_IF_SET,
    NotFilling,
    hashed_settings,
    load_exactly,
    tensors_hash,
    under,
    write_tensors,
)


def test_a_view_is_written_as_it_looks(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2, 3).T})
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [[1, 1]] * 3


def test_what_is_under_a_prefix_has_the_rest_of_its_name():
    tensors = {name: torch.ones(1) for name in ("a.x", "a.y.z", "ab.x", "x")}
    assert list(under(tensors, "a.")) == ["x", "y.z"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"more": torch.ones(1)}, 'Unexpected key\\(s\\) in state_dict: "more"'),
        ({"bias": torch.ones(2)}, "size mismatch for bias"),
        ({"bias": None}, 'Missing key\\(s\\) in state_dict: "bias"'),
    ],
)
def test_a_module_takes_all_of_its_tensors_and_no_others(change, reason):
    module, whole = nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    load_exactly(module, whole, "it must fit")
    assert module.weight.item() == module.bias.item() == 1
    given = {name: tensor for name, tensor in (whole | change).items() if tensor is not None}
    with pytest.raises(RunError, match=f"^it must fit, got: .*{reason}.*; copy it$") as caught:
        load_exactly(module, given, "it must fit", "copy it", RunError)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("length", [1, 7, 8, 40, 63])
def test_mapped_tensors_lie_as_allocated_ones_do(tmp_path, length):
    file = tmp_path / "a.safetensors"
    written = {"n" * length: torch.randn(16, 3), "other": torch.randn(5)}
    write_tensors(file, written)
    found = load_file(file)
    assert found.keys() == written.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in written.items())
    assert found["n" * length].data_ptr() % 64 == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows replaces no file that is mapped")
def test_tensors_that_stay_are_shared_until_they_are_trained(tmp_path):
    file = tmp_path / "a.safetensors"
    write_tensors(file, nn.Linear(16, 16).state_dict())
    module, tensors = nn.Linear(16, 16).requires_grad_(False), load_file(file)
    load_exactly(module, tensors, "it must fit", stay=True)
    assert module.weight.data_ptr() == tensors["weight"].data_ptr()
    assert not module.weight.requires_grad
    before = module.weight.clone()
    module.weight.add_(1)
    assert torch.equal(load_file(file)["weight"], before)


def test_tensors_of_another_type_are_copied():
    module, halves = nn.Linear(16, 16), nn.Linear(16, 16).half().state_dict()
    load_exactly(module, halves, "it must fit", stay=True)
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, halves["weight"].float())


def test_no_values_are_drawn_where_others_follow():
    before = torch.random.get_rng_state()
    with NotFilling():
        layer = nn.Linear(3, 4)
        table = nn.Embedding(5, 3)
        assert nn.init.normal_(layer.weight) is layer.weight
    assert (layer.weight.shape, table.weight.shape) == ((4, 3), (5, 3))
    assert torch.equal(torch.random.get_rng_state(), before)
    nn.Linear(3, 4)
    assert not torch.equal(torch.random.get_rng_state(), before)
