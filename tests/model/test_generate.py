import pytest
import torch

from pathweave.errors import PathError
from pathweave.model.generate import generate
from pathweave.model.prompt import Template
from tests.tiny import chain, medium, tiny_model

PROMPTS = [
    [medium("sound", seed=1), "What is it?"],
    [medium("range", units=2, seed=2), "How far away is the thing in front?"],
    ["Say hello."],
    [medium("sight", tokens=1, seed=3)],
]


@pytest.fixture
def model():
    return tiny_model(*chain("sight", "sound", "range"))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_is_answered_as_one_prompt_at_a_time(model, beams):
    together = generate(model, PROMPTS, max_tokens=6, beams=beams)
    assert together == [generate(model, [prompt], 6, beams)[0] for prompt in PROMPTS]
    assert len(set(together)) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_the_search_is_that_of_transformers(model, beams):
    for prompt, answer in zip(PROMPTS, generate(model, PROMPTS, 5, beams), strict=True):
        [embeds] = model.embed_prompts([prompt])
        ids = model.llm.generate(
            inputs_embeds=embeds[None],
            attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
            max_new_tokens=5,
            num_beams=beams,
            do_sample=False,
        )
        assert answer == model.base.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def speak(model, text):
    """Make the language model say a text of distinct letters for ever, whatever it is asked."""
    ids = model.base.tokenizer.encode(text)
    with torch.no_grad():
        model.llm.model.norm.weight.fill_(0.0)
        model.llm.lm_head.weight.zero_()
    layer = torch.nn.Linear(32, len(model.base.tokenizer))
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    layer.bias.data[ids[0]] = 1.0
    model.llm.set_output_embeddings(layer)


def test_the_answer_ends_where_the_template_ends_it(model):
    speak(model, "x")
    assert generate(model, PROMPTS[:2], max_tokens=4) == ["xxxx", "xxxx"]
    model.base.template = Template(end="xx\n")
    assert generate(model, PROMPTS[:1], max_tokens=3) == [""]


def test_rows_that_end_early_stay_as_they_are(model):
    speak(model, "x")
    model.llm.get_output_embeddings().bias.data[0] = 2.0  # the end of the sequence
    assert generate(model, PROMPTS, max_tokens=4) == [""] * 4


def test_an_answer_has_at_least_so_many_tokens(model):
    speak(model, "x")
    model.llm.get_output_embeddings().bias.data[0] = 2.0  # the end of the sequence
    found = generate(model, PROMPTS[:2], max_tokens=6, min_tokens=3)
    assert found == ["xxx", "xxx"]


def test_a_repetition_penalty_weakens_tokens_of_the_answer_alone(model):
    speak(model, "x")
    bias = model.llm.get_output_embeddings().bias.data
    bias[model.base.tokenizer.encode("y")[0]] = 0.7
    assert generate(model, [["xy?"]], max_tokens=3, repetition_penalty=1.3) == ["xxx"]
    # 1 / 1.5 < 0.7, then 0.7 / 1.5 < 1 / 1.5; what the prompt says does not count.
    together = generate(model, [["xy?"], ["A longer xy?"]], max_tokens=3, repetition_penalty=1.5)
    assert together == ["xyx", "xyx"]


@pytest.mark.parametrize(("penalty", "answer"), [(-3.0, ""), (3.0, "xxxx")])
def test_a_length_penalty_chooses_among_beams(model, penalty, answer):
    speak(model, "x")
    bias = model.llm.get_output_embeddings().bias.data
    bias[:] = -20.0
    bias[model.base.tokenizer.encode("x")[0]] = 0.0
    bias[0] = -0.5  # the end of the sequence
    assert generate(model, PROMPTS[:1], 4, beams=2, length_penalty=penalty) == [answer]


def test_nothing_is_asked():
    assert generate(tiny_model(), []) == []


def test_an_unknown_path_is_refused(model):
    with pytest.raises(PathError, match=r"got 'rang'; did you mean 'range'\?"):
        generate(model, [[medium("rang"), "What?"]])
