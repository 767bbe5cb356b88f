"""A chat model in place of the base's own language model gets its own chat template."""

import pytest
import torch

from pathweave.bases.llm import use_llm
from pathweave.model.base import ends_of
from pathweave.model.chat_reader import end_of_answer
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Turn
from tests.tiny import byte_tokenizer, chain, medium, randomise, tiny_base, tiny_llm

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A language model that stops at the end of a turn, or of a sequence."""
    place = tmp_path_factory.mktemp("chat")
    tokenizer = byte_tokenizer()
    marks = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    llm = tiny_llm(tokenizer)
    llm.generation_config.eos_token_id = [0, tokenizer.convert_tokens_to_ids("<|end|>")]
    llm.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def model(directory):
    base = tiny_base()
    use_llm(base, directory)
    model = PathWeave(base, {"sound": "sound:"})
    randomise(model.paths.expand(chain("sight", "sound")[0]))
    randomise(model.paths.expand(chain("sight", "sound")[1]))
    return model.eval()


def said(model, prompt):
    [(prefix, rest)] = model.lay_out([prompt]).rows
    ids = [i for i in prefix + rest if i < len(model.base.tokenizer)]
    return model.base.tokenizer.decode(ids)


@torch.no_grad()
def test_a_conversation_is_put_in_the_template_of_the_model(model):
    prompt = [Turn("system"), "Be brief.", Turn("user"), medium("sound"), "What?"]
    prompt += [Turn("assistant"), "A dog.", Turn("user"), "Sure?"]
    assert said(model, prompt) == (
        "<|system|>Be brief.<|end|><|user|>sound: What?<|end|><|assistant|>A dog.<|end|>"
        "<|user|>Sure?<|end|><|assistant|>"
    )
    assert said(model, ["Hello."]) == "<|user|>Hello.<|end|><|assistant|>"


@torch.no_grad()
def test_an_answer_ends_as_the_template_ends_it(model):
    assert model.base.tokenizer.decode(model.answer_ids(" yes ")) == "yes<|end|>"
    assert end_of_answer(model.base.tokenizer, [0]) is None
    assert end_of_answer(model.base.tokenizer, ends_of(model.llm)) == model.base.end_token
    prompts = [[medium("sound"), "What?"], ["Hello."]]
    together = generate(model, prompts, 5)
    assert together == [generate(model, [prompt], 5)[0] for prompt in prompts]


def test_another_template_is_another_base(directory, model):
    before = model.base.fingerprint()
    base = tiny_base()
    use_llm(base, directory)
    assert base.fingerprint() == before
    file = directory / "chat_template.jinja"
    file.write_text(TEMPLATE.replace("<|end|>", "<|end|>\n"), encoding="utf-8")
    other = tiny_base()
    use_llm(other, directory)
    file.write_text(TEMPLATE, encoding="utf-8")
    assert other.fingerprint() != before
