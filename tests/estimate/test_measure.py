"""What is measured on shapes is what torch itself counts on real tensors."""

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pathweave.estimate.measure import Meter, Saved, weight_bytes
from pathweave.model.base import freeze
from tests.estimate.measure import measured_flops, saved_bytes
from tests.estimate.models import TEXT, WIDTH, model_of
from tests.tiny import medium

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {**SIZES, **IDS, "intermediate_size": 88}
DECODERS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, num_key_value_heads=4)),
    "grouped keys": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, num_key_value_heads=2)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**LLAMA, num_key_value_heads=2)),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(**SIZES, **IDS, ffn_dim=128, word_embed_proj_dim=32)
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            **{**IDS, "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4},
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    ),
}


def on_shapes(run):
    """Operations and saved bytes of a run whose modules are on the meta device."""
    with Meter() as meter:
        with Saved(run.model) as saved:
            loss = run()
        forward = meter.flops
        if loss.requires_grad:
            loss.backward()
    return (forward, meter.flops - forward), saved.num_bytes


class Step:
    """A training step of a model on equal samples of one path."""

    def __init__(self, model, name, batch=2, units=3, tokens=17):
        self.model, self.name = model, name
        self.media = [medium(name, units=units, tokens=tokens, width=WIDTH)] * batch

    def __call__(self):
        device = self.model.device
        media = [type(m)(m.path, m.features.to(device)) for m in self.media]
        return self.model([[m, TEXT] for m in media], ["yes, a dog"] * len(media))[0]


@pytest.mark.parametrize(
    ("gate", "text"),
    [("softmax", True), ("noisy_softmax", True), ("top_k", False), (None, False)],
)
def test_a_step_of_a_path_costs_what_it_does_with_real_tensors(gate, text):
    model, _ = model_of(gate, text, dim=128)
    model.cues.clear()
    step = Step(model, "fourth")
    flops, kept = measured_flops(step), saved_bytes(model, step)
    model.to("meta")
    found, bytes_found = on_shapes(step)
    assert found == flops
    assert bytes_found == kept


def test_a_step_of_the_connector_costs_what_it_does_with_real_tensors():
    model, _ = model_of(connector=True)
    step = Step(model, "first")
    flops, kept = measured_flops(step), saved_bytes(model, step)
    model.to("meta")
    assert on_shapes(step)[0] == flops
    assert on_shapes(step)[1] == kept


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4))
def test_any_medium_and_batch(units, tokens, batch):
    model, _ = model_of(dim=16)
    step = Step(model, "fourth", batch, units, tokens)
    flops = measured_flops(step)
    model.to("meta")
    # The words before the medium were read, and kept, by the first run.
    assert on_shapes(step)[0] == flops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_any_frozen_language_model(name, dtype):
    llm = DECODERS[name]().to(dtype)
    freeze(llm)

    def loss():
        embeds = torch.randn(2, 33, 32, dtype=dtype, device=llm.device, requires_grad=True)
        hidden = llm.base_model(inputs_embeds=embeds, use_cache=False)[0]
        logits = llm.get_output_embeddings()(hidden[:, -9:]).float().flatten(0, 1)
        return F.cross_entropy(logits, torch.zeros(18, dtype=torch.long, device=llm.device))

    loss.model = llm
    flops, kept = measured_flops(loss), saved_bytes(llm, loss)
    llm.to("meta")
    found, bytes_found = on_shapes(loss)
    assert found == flops
    # Of each row a layer norm keeps two numbers: in float32, but on a CPU in the type of the rows.
    norms = sum(isinstance(module, torch.nn.LayerNorm) for module in llm.modules())
    assert bytes_found == kept + norms * 2 * 33 * 2 * (4 - dtype.itemsize)


def test_what_was_seen_before_is_counted_again():
    layer = torch.nn.Linear(3, 5, device="meta")
    counts = []
    for _ in range(2):
        with Meter() as meter:
            layer(layer.weight.new_empty(2, 3))
        counts.append(meter.flops)
    assert counts == [60, 60]


def test_shapes_are_those_of_real_tensors():
    x = torch.empty(2, 4, 7, 8, device="meta")
    with Meter():
        out = F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)
        again = F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)
    assert out.shape == again.shape == (2, 4, 7, 8)


def test_weights_are_counted_once_in_their_own_type():
    module = torch.nn.Linear(3, 5).bfloat16()
    shared = torch.nn.ModuleList([module, module, torch.nn.LayerNorm(2)])
    assert weight_bytes(shared, module) == (15 + 5) * 2 + 4 * 4
