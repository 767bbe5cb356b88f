"""Errors and predecessors; that the numbers are right is in ``tests/nn/test_golden.py``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pathweave.bases.released import load_released_paths
from pathweave.errors import PathError
from pathweave.nn import QFormer, QFormerShape, woven_sites
from pathweave.paths import Paths, PathSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "qformer_audio.npz"
ORDER = ("video", "audio", "depth", "pc")
SPEC = PathSpec("audio", encoder_width=24, num_queries=4, gate="noisy_softmax")
KEY = "bert.encoder.layer.2.crossattention.self.value"


@pytest.fixture
def state():
    with np.load(GOLDEN) as file:
        names = [name for name in file.files if name.startswith("param/")]
        return {name.removeprefix("param/"): torch.from_numpy(file[name]) for name in names}


def load(state):
    shape = QFormerShape(dim=32, num_layers=4, num_heads=4, hidden_dim=64, encoder_width=24)
    sites = woven_sites(QFormer(shape))
    paths = Paths(
        32, 24, {site: (m.host.in_features, m.host.out_features) for site, m in sites.items()}
    )
    load_released_paths(state, paths, ORDER, SPEC)
    return paths


def test_predecessors_are_made_from_the_adapters_of_the_checkpoint(state):
    paths = load(state)
    assert paths.names == ["video", "audio"]
    assert paths["audio"].spec.predecessors == ("video",)
    site = "layer_2/cross_attention/value"
    for index, name in enumerate(paths.names):
        adapter = paths[name].adapter(site)
        assert torch.equal(adapter.up.weight, state[f"{KEY}_adapter_list.{index}.up_proj.weight"])
    assert torch.equal(
        paths["audio"].at(site).in_adapters[0].weight, state[f"{KEY}_in_adapter_list.0.weight"]
    )


NAMES = [
    f"{KEY}_adapter_list.1.scale",
    f"{KEY}_adapter_list.0.down_proj.bias",
    f"{KEY}_in_adapter_list.0.weight",
    "bert.encoder.layer.2.crossattention.self.audio_gate_adapter_value",
    "bert.encoder.layer.2.crossattention.self.audio_noise_gate_adapter_value",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor_is_named(state, name):
    del state[name]
    with pytest.raises(PathError, match=f"must hold {name}, got none; is it another stage's"):
        load(state)


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_another_shape_is_named(state, name):
    state[name] = state[name].new_zeros(9, 9, 9)
    with pytest.raises(PathError, match=rf"{name} must have shape \(.*\), got \(9, 9, 9\); the"):
        load(state)
