import pytest
import torch

from pathweave.model.prompt import Template
from pathweave.model.rank import log_likelihoods
from tests.tiny import FAMILIES, chain, medium, tiny_model

CHOICES = ["a shirt", "a shirt dress", "b", "ankle boot"]
PROMPTS = [
    [medium("sound", seed=1), "What is it?"],
    [medium("range", units=2, seed=2), "How far away is the thing in front?"],
    ["Say hello."],
]


@pytest.fixture
def model():
    return tiny_model(*chain("sight", "sound", "range"))


@torch.no_grad()
def plain(model, prompt, choice):
    """Likelihood of a choice from one pass over the whole sequence."""
    text = f" {choice}{model.base.template.end}"
    ids = torch.tensor([*model.base.tokenizer.encode(text), 0])
    before = model.embed_prompts([prompt])[0]
    embeds = torch.cat([before, model.llm.get_input_embeddings()(ids)])[None]
    logits = model.llm(inputs_embeds=embeds).logits[0, len(before) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids].sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_those_of_the_language_model_whatever_it_does_to_its_logits(family):
    model = tiny_model(*chain("sight", "sound", "range"), **FAMILIES[family])
    found = log_likelihoods(model, PROMPTS, CHOICES)
    expected = [[plain(model, prompt, choice) for choice in CHOICES] for prompt in PROMPTS]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("end", ["", "<stop>"])
def test_the_shared_prompt_gives_the_likelihood_of_the_whole_sequence(model, end):
    model.base.template = Template(after=" Answer:", end=end)
    found = log_likelihoods(model, PROMPTS, CHOICES)
    expected = [[plain(model, prompt, choice) for choice in CHOICES] for prompt in PROMPTS]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_it_is_the_negative_loss(model):
    found = log_likelihoods(model, PROMPTS[:1], CHOICES[:1])
    loss, _ = model(PROMPTS[:1], CHOICES[:1])
    torch.testing.assert_close(found[0, 0], -loss, atol=1e-4, rtol=1e-5)


def test_the_order_of_choices_does_not_matter(model):
    found = log_likelihoods(model, PROMPTS, CHOICES)
    torch.testing.assert_close(found.flip(1), log_likelihoods(model, PROMPTS, CHOICES[::-1]))


def test_a_single_choice(model):
    assert log_likelihoods(model, PROMPTS, ["b"]).shape == (3, 1)
