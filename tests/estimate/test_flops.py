"""Our operations equal those that torch counts on real modules."""

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.estimate.flops import Flops, attention, connector_flops, folding_flops, product
from pathweave.estimate.language_model import LanguageModel
from pathweave.estimate.workload import Workload
from pathweave.model.base import freeze
from pathweave.model.generate import generate
from tests.estimate.measure import measured_flops
from tests.estimate.models import QUERIES, TEXT, WIDTH, model_of
from tests.tiny import chain, medium, tiny_model

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
        hf.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, **IDS)
    ),
}


def soft_tokens(model, name, batch, units, tokens):
    media = [
        medium(name, units=units, tokens=tokens, width=WIDTH, seed=seed) for seed in range(batch)
    ]
    return lambda: torch.cat(model.soft_tokens(media, [TEXT] * batch))


@pytest.mark.parametrize(
    ("gate", "text"),
    [("softmax", True), ("noisy_softmax", True), ("top_k", False), (None, False)],
)
def test_training_a_path(gate, text):
    model, path = model_of(gate, text)
    batch, load = 2, Workload(3, 17, QUERIES, len(TEXT), 1, text)
    forward, backward = measured_flops(soft_tokens(model, "fourth", batch, 3, 17))
    expected = connector_flops(model, path, load, training=True) * batch
    assert expected + folding_flops(model, path) == Flops(forward, backward)


def test_training_the_connector():
    model, path = model_of(connector=True)
    forward, backward = measured_flops(soft_tokens(model, "first", 1, 2, 9))
    load = Workload(2, 9, QUERIES, len(TEXT), 1)
    assert connector_flops(model, path, load, training=True) == Flops(forward, backward)


@pytest.mark.parametrize("name", ["first", "second", "fourth"])
def test_answering(name):
    model, _ = model_of("noisy_softmax")
    freeze(model)
    path = model.paths[name]
    forward, backward = measured_flops(soft_tokens(model, name, 1, 2, 9))
    load = Workload(2, 9, QUERIES, len(TEXT), 1)
    folding = folding_flops(model, path).forward
    assert connector_flops(model, path, load, training=False).forward + folding == forward
    assert backward == 0


@pytest.fixture(scope="module")
def small():
    return model_of(dim=16)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4))
def test_any_medium(small, units, tokens, batch):
    model, path = small
    forward, backward = measured_flops(soft_tokens(model, "fourth", batch, units, tokens))
    load = Workload(units, tokens, QUERIES, len(TEXT), 1)
    expected = connector_flops(model, path, load, training=True) * batch
    assert expected + folding_flops(model, path) == Flops(forward, backward)


@pytest.mark.parametrize("name", DECODERS)
def test_a_frozen_language_model(name):
    llm = DECODERS[name]()
    freeze(llm)
    sizes, load = LanguageModel.of(llm), Workload(2, 5, QUERIES, text=11, answer=4)
    embeds = torch.randn(1, load.sequence, 32, requires_grad=True)

    def logits():
        hidden = llm.base_model(inputs_embeds=embeds, use_cache=False)[0]
        return llm.get_output_embeddings()(hidden[:, -load.answer :])

    assert Flops(*measured_flops(logits)) == sizes.training(load)

    def answer():
        prompt = embeds.detach()[:, : load.prompt]
        mask = torch.ones(1, load.prompt, dtype=torch.long)
        count = {"min_new_tokens": load.answer, "max_new_tokens": load.answer}
        return llm.generate(
            inputs_embeds=prompt, attention_mask=mask, do_sample=False, pad_token_id=0, **count
        )

    assert measured_flops(answer)[0] == sizes.prefill(load) + sizes.decode(load)


def test_a_whole_answer_of_our_own():
    """Connector, prompt and tokens together are what ``generate`` computes."""
    model = tiny_model(*chain("sight", "sound"))
    model.cues.clear()  # a cue would be read before, and kept
    prompt = [medium("sound", units=2, tokens=5), "How is it?"]
    length = len(model.embed_prompts([prompt])[0])
    load = Workload(2, 5, 3, text=length - 6, answer=5)
    words = Workload(2, 5, 3, text=len("How is it?"), answer=5)

    def answer():
        generate(model, [prompt], max_tokens=5, min_tokens=5)
        return torch.zeros(1)

    llm = LanguageModel.of(model.llm)
    path = model.paths["sound"]
    connector = connector_flops(model, path, words, training=False).forward
    expected = connector + folding_flops(model, path).forward + llm.prefill(load) + llm.decode(load)
    assert measured_flops(answer)[0] == expected


def test_sums_and_products():
    assert product(2, 3, 5, is_trained=False) == Flops(60, 60)
    assert product(2, 3, 5, is_trained=True) == Flops(60, 120)
    assert attention(2, 7, 8) == Flops(448, 896)
    assert (Flops(1, 2) + Flops(3, 4) * 10).total == 73
