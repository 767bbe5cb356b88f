"""The released Q-Former, layer by layer, for every stage: PathWeave's method in numbers."""

import pytest
import torch

from pathweave.model.paths import Paths
from pathweave.nn import Adapter, Gate, InAdapter, QFormer
from tests.released.files import ORDER
from tests.released.golden import load, released_model


def hidden_states(qformer: QFormer, paths: Paths, data: dict, case: str, modality: str):
    given = {k.split("/")[-1]: v for k, v in data.items() if k.startswith(f"in/{case}/")}
    queries = given["query_embeds"]
    mask = given.get("attention_mask")
    states = []
    for layer in qformer.layers:
        layer.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    layer.register_forward_hook(lambda *seen: states.append(seen[-1]))
    with torch.no_grad():
        qformer(
            queries,
            given["encoder_hidden_states"],
            paths.route([modality] * len(queries)),
            given["encoder_attention_mask"].bool(),
            given.get("input_ids"),
            None if mask is None else mask[:, queries.shape[1] :].bool(),
        )
    return states


@pytest.mark.parametrize("case", ["text", "notext", "onetoken"])
@pytest.mark.parametrize("modality", ORDER)
def test_every_hidden_state_equals_the_released_one(modality: str, case: str):
    qformer, imported = released_model(modality, quirks=True)
    data = load(f"qformer_{modality}")
    name = imported.checkpoints[-1].name
    states = hidden_states(qformer, imported.paths, data, case, name)
    for i, state in enumerate(states):
        torch.testing.assert_close(
            state, data[f"out/{case}/hidden_states_{i}"], atol=1e-5, rtol=1e-5
        )
    torch.testing.assert_close(
        states[-1], data[f"out/{case}/last_hidden_state"], atol=1e-5, rtol=1e-5
    )


def test_without_the_quirks_the_point_cloud_stage_differs():
    qformer, imported = released_model("pc", quirks=False)
    data = load("qformer_pc")
    states = hidden_states(qformer, imported.paths, data, "text", "point_cloud")
    assert (states[-1] - data["out/text/last_hidden_state"]).abs().max() > 0.5


def test_gates_equal_the_released_ones_with_and_without_noise(monkeypatch):
    data = load("gating")
    gate = Gate(32, 3, "noisy_softmax")
    gate.weight.data = data["w_gate"]
    gate.noise_weight.data = data["w_noise"]
    torch.testing.assert_close(gate.eval()(data["x"]), data["gates_eval"], atol=1e-6, rtol=1e-5)
    monkeypatch.setattr(torch, "randn_like", lambda _: data["noise"])
    torch.testing.assert_close(gate.train()(data["x"]), data["gates_train"], atol=1e-6, rtol=1e-5)


def test_adapter_equals_the_released_one_with_and_without_in_adapter():
    data = load("adapter")
    names = {"down_proj": "down", "up_proj": "up"}
    state = {}
    inner = InAdapter(8)
    for key, value in data.items():
        if not key.startswith("param/"):
            continue
        name = key.removeprefix("param/")
        if name.startswith("in_adapter."):
            getattr(inner, name.split(".")[1]).data = value
        else:
            head, *tail = name.split(".")
            state[".".join([names.get(head, head), *tail])] = value
    adapter = Adapter(24, 32, 8)
    adapter.load_state_dict(state)
    torch.testing.assert_close(adapter(data["x"]), data["y_plain"])
    torch.testing.assert_close(adapter(data["x"], inner), data["y_with_in_adapter"])
