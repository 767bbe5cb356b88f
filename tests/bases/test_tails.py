"""A tail takes tokens one by one, and gives what the language model is given for a picture."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pathweave.bases.tails import TAILS, find_tail
from tests.vision_llms import FAMILIES, WIDTH, random_model, tokenizer_of


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_tail_maps_each_token_to_the_width_of_the_language_model(name):
    model = random_model(name, tokenizer_of(FAMILIES[name]))
    tail = find_tail(model)
    if tail is None:
        assert name not in TAILS
        return
    features = torch.randn(2, 5, tail.width)
    tokens = tail.module(features)
    assert tokens.shape == (2, 5, WIDTH)
    alone = tail.module(features[1:, 3:4])
    torch.testing.assert_close(tokens[1:, 3:4], alone, atol=1e-5, rtol=1e-5)
    assert model.get_submodule(tail.name) is tail.module


def test_an_unknown_family_has_none():
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=1)  # fmt: skip
    assert find_tail(LlamaForCausalLM(config)) is None
