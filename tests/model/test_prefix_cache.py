import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.model.generate import generate
from pathweave.model.laid_out import pad
from pathweave.model.prefix_cache import Prefixes
from pathweave.model.prompt import Template
from tests.tiny import FAMILIES, chain, medium, tiny_model

PROMPTS = [
    ["Look here:", medium("sound", seed=1), "What is it?"],
    ["And now, what do you see here?", medium("range", units=2, seed=2)],
    [medium("sight", seed=3), "What?"],
    ["Say hello."],
]


@pytest.fixture
def model():
    return tiny_model(*chain("sight", "sound", "range"))


def lengths_read(llm):
    """A list to which the length of every sequence that the language model reads is added."""
    lengths = []
    llm.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return lengths


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_to_the_whole_sequence(family, beams):
    model = tiny_model(*chain("sight", "sound", "range"), **FAMILIES[family])
    embeds, mask = pad(model.embed_prompts(PROMPTS), side="left")
    ids = model.llm.generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=6, num_beams=beams
    )
    whole = model.base.tokenizer.batch_decode(ids, skip_special_tokens=True)
    found = generate(model, PROMPTS, max_tokens=6, beams=beams)
    assert found == [text.strip() for text in whole]


def test_the_gradient_is_that_of_the_whole_sequence(model):
    queries = model.paths["sound"].queries.requires_grad_()
    loss, _ = model(PROMPTS, ["a", "b", "c", "d"])
    loss.backward()
    found, queries.grad = queries.grad, None
    model.prefixes.are_shareable = False
    model(PROMPTS, ["a", "b", "c", "d"])[0].backward()
    assert found.norm() > 0
    torch.testing.assert_close(found, queries.grad, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_equal_prefixes_are_read_once_and_for_all(model):
    read, prefixes = lengths_read(model.llm), Prefixes(model.llm)
    prefixes.cache([(5, 6, 7), (8, 9), (), (5, 6, 7)])
    prefixes.cache([(8, 9), (5, 6, 7)])
    assert read == [3, 2]


@torch.no_grad()
@given(st.lists(st.lists(st.integers(1, 40), max_size=5).map(tuple), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_prefix_does_not_depend_on_its_company(rows):
    llm = tiny_model(*chain("sight")).llm
    cache, mask = Prefixes(llm).cache(rows)
    assert mask.sum(1).tolist() == [len(row) for row in rows]
    for i, row in enumerate(rows):
        if row:
            alone, _ = Prefixes(llm).cache([row])
            for layer, own in zip(cache.layers, alone.layers, strict=True):
                assert torch.equal(layer.keys[i, :, -len(row) :], own.keys[0])
                assert torch.equal(layer.values[i, :, -len(row) :], own.values[0])


@torch.no_grad()
def test_no_more_is_kept_than_allowed_and_the_latest_stays(model):
    read, prefixes = lengths_read(model.llm), Prefixes(model.llm, kept_tokens=4)
    prefixes.cache([(1, 2, 3)])
    prefixes.cache([(4, 5)])
    prefixes.cache([(4, 5)])
    prefixes.cache([(1, 2, 3)])
    assert read == [3, 2, 3]


@torch.no_grad()
def test_prompts_without_a_prefix_need_no_cache(model):
    cache, mask = Prefixes(model.llm).cache([(), ()])
    assert cache is None
    assert mask.shape == (2, 0)


def test_a_closing_text_comes_first_where_the_base_wants_it():
    sound, sight = medium("sound"), medium("sight")
    template = Template(text_first=True)
    assert template.order([sound, sight, "Same?"]) == ["Same?", sound, sight]
    assert template.order([sound, "Like", sight, "?"]) == [sound, "Like", sight, "?"]
    assert template.order(["Look:", sound]) == ["Look:", sound]
    assert template.order(["Hello."]) == ["Hello."]
    assert Template().order([sound, "What?"]) == [sound, "What?"]
