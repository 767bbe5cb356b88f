"""Our bytes are near those that torch keeps. The tolerances are what the docstrings claim."""

import pytest
import torch
from torch.nn import functional as F

from pathweave.estimate.language_model import LanguageModel
from pathweave.estimate.memory import (
    connector_activations,
    fused_bytes,
    gradient_bytes,
    optimizer_bytes,
    weight_bytes,
)
from pathweave.estimate.network import Features
from pathweave.estimate.workload import Workload
from pathweave.methods.settings import Training
from pathweave.model.base import freeze
from pathweave.train.schedule import make_optimizer
from tests.estimate.measure import saved_bytes
from tests.estimate.models import QUERIES, TEXT, model_of
from tests.estimate.test_flops import DECODERS, soft_tokens

EXACT = {"llama", "grouped keys", "qwen2", "opt"}


def relative(found, expected):
    return found / expected - 1


@pytest.mark.parametrize("text", [True, False], ids=["with text", "without text"])
@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", "top_k", None])
def test_activations_of_the_connector(gate, text):
    model, path = model_of(gate, text, dim=128)
    batch, load = 2, Workload(3, 17, QUERIES, len(TEXT), 1, text)
    found = saved_bytes(model, soft_tokens(model, "fourth", batch, 3, 17))
    expected = batch * connector_activations(model, path, load) + fused_bytes(model, path)
    assert abs(relative(found, expected)) < 0.05


def test_activations_of_a_connector_that_is_trained_itself():
    model, path = model_of(connector=True, dim=128)
    load = Workload(3, 17, QUERIES, len(TEXT), 1)
    found = saved_bytes(model, soft_tokens(model, "first", 2, 3, 17))
    assert abs(relative(found, 2 * connector_activations(model, path, load))) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_activations_of_a_frozen_language_model(name, dtype):
    llm = DECODERS[name]().to(dtype)
    freeze(llm)
    load = Workload(1, 1, 8, text=20, answer=9)
    embeds = torch.randn(2, load.sequence, 32, dtype=dtype, requires_grad=True)

    def loss():
        hidden = llm.base_model(inputs_embeds=embeds, use_cache=False)[0]
        logits = llm.get_output_embeddings()(hidden[:, -load.answer :]).float()
        return F.cross_entropy(logits.flatten(0, 1), torch.zeros(18, dtype=torch.long))

    found = saved_bytes(llm, loss)
    share = relative(found, 2 * LanguageModel.of(llm).activations(load))
    assert abs(share) < 0.05 if name in EXACT else 0 < share < 1.5


def test_a_training_step_with_the_language_model():
    model, path = model_of("noisy_softmax")
    batch = [soft_tokens(model, "fourth", 1, 2, 9)]
    prompt = model.paths["fourth"].spec.num_queries * 2
    load = Workload(2, 9, QUERIES, len(TEXT), 6)
    llm = LanguageModel.of(model.llm)
    embeds = torch.randn(load.sequence - prompt, 32)

    def loss():
        rows = torch.cat([batch[0](), embeds])[None]
        hidden = model.llm.base_model(inputs_embeds=rows, use_cache=False)[0]
        logits = model.llm.get_output_embeddings()(hidden[:, -6:]).float()
        return F.cross_entropy(logits.flatten(0, 1), torch.zeros(6, dtype=torch.long))

    expected = connector_activations(model, path, load) + llm.activations(load)
    found = saved_bytes(model, loss)
    assert abs(relative(found, expected + fused_bytes(model, path))) < 0.05


def test_gradients_and_moments_are_those_of_adamw():
    model, path = model_of()
    modules = torch.nn.ModuleDict({"path": path})
    optimizer = make_optimizer(modules, Training())
    soft_tokens(model, "fourth", 1, 1, 4)().sum().backward()
    optimizer.step()
    count = sum(p.numel() for p in path.parameters())
    gradients = sum(p.grad.nbytes for p in path.parameters())
    moments = [v for s in optimizer.state.values() for k, v in s.items() if k.startswith("exp_avg")]
    assert gradients == gradient_bytes(count)
    assert sum(moment.nbytes for moment in moments) == optimizer_bytes(count)


def test_weights_are_counted_once_in_their_own_type():
    module = torch.nn.Linear(3, 5).bfloat16()
    shared = torch.nn.ModuleList([module, module, torch.nn.LayerNorm(2)])
    assert weight_bytes(shared) == (15 + 5) * 2 + 4 * 4


def test_keys_and_values_are_those_of_the_cache():
    llm = DECODERS["grouped keys"]()
    load = Workload(1, 1, 4, text=3, answer=2)
    cache = llm(torch.zeros(1, load.sequence, dtype=torch.long), use_cache=True).cache
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert LanguageModel.of(llm).keys_and_values(load) == held


def test_cached_features_are_in_half_precision():
    features = Features(units=5, tokens=257, width=1408)
    assert features.cached_bytes == torch.zeros(5, 257, 1408, dtype=torch.float16).nbytes
