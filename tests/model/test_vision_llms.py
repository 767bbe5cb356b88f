"""Every family of vision LLMs as a base: what paths add, and that the base stays what it was."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pathweave.bases.vision_llm import load_vision_base, load_vision_llm
from pathweave.errors import BaseMismatchError
from pathweave.methods.path import ATTENTION
from pathweave.methods.settings import Reducer
from pathweave.model.generate import generate
from pathweave.model.laid_out import pad
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Template, Turn
from pathweave.model.rank import log_likelihoods
from pathweave.nn.hooked import carrying
from pathweave.runs.path_directory import load_path, save_path
from tests.tiny import WIDTH, medium, randomise
from tests.vision_llms import FAMILIES, HAS_TORCHVISION, native, write_vision_llm

# Pillow and the latest NumPy do not agree on how to copy, which some processors make them do.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
OWN = ("qformer", "projector")
SITES = (*ATTENTION, "tail*")
TOKENS = 4


def spec(name, *earlier, base, scope="onward"):
    sites = SITES if base.tail is not None else ATTENTION
    return PathSpec(
        name, WIDTH, 3, earlier, rank=4, sites=sites, own=OWN, scope=scope, in_adapter="identity"
    )


# Two families in the everyday suite, the others in one of their own (``make vision``).
CHOSEN = [name for name in FAMILIES if (name in ("llava", "gemma3")) != HAS_TORCHVISION]


@pytest.fixture(scope="module", params=CHOSEN)
def world(request, tmp_path_factory):
    """A base before anything is done to it, and the same with two trained paths."""
    name = request.param
    directory = write_vision_llm(tmp_path_factory.mktemp(name), name)
    torch.manual_seed(0)
    base = load_vision_base(directory, Reducer(layers=2, width=16).shape)
    plain = load_vision_llm(directory).model
    model = PathWeave(base, {"sound": "sound: ", "range": "range: "})
    kind = base.native[0]
    picture = native(kind)
    found = SimpleNamespace(
        name=name,
        directory=directory,
        plain=plain,
        model=model,
        kind=kind,
        text=[["Say hello."], [Turn("user"), "Hi.", Turn("assistant"), "Yes?", Turn("user"), "Hm"]],
        seen=[[picture, "What is it?"]],
        sound=[["Listen:", medium("sound", seed=1), "What is it?"]],
        both=[[picture, medium("sound", seed=2), "Do they fit?"]],
        losses={},
    )
    found.before = unwoven(found, found.text), unwoven(found, found.seen)
    for new, earlier in (("sound", ()), ("range", ("sound",))):
        path = model.paths.expand(spec(new, *earlier, base=base))
        randomise(path, 0.1).requires_grad_(True)
        optimizer = torch.optim.AdamW(path.parameters(), lr=0.01)
        model.train()
        losses = found.losses[new] = []
        for _ in range(5):
            asked = [[medium(new, seed=s), f"What {s}?"] for s in range(2)]
            loss, _ = model(asked, ["a dog", "no"])
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        found.no_gradient = [n for n, p in path.named_parameters() if p.grad is None]
        path.requires_grad_(False)
        model.eval()
        if new == "sound":
            found.first = outputs(model, found.sound), outputs(model, found.both)
    return found


def laid_out(model, prompts):
    """Ids padded on the left, their mask, and what goes in beside."""
    prefilled = model.prefill(prompts)
    ids, mask = pad(prefilled.remainder, "left")
    beside = prefilled.laid_out.beside("left", ids.device, model.base.after_prompt)
    return prefilled.laid_out.ride, {"input_ids": ids, "attention_mask": mask, **beside}


@torch.no_grad()
def outputs(model, prompts):
    ride, inputs = laid_out(model, prompts)
    with carrying(ride):
        return model.llm(**inputs).logits, generate(model, prompts, TOKENS)


@torch.no_grad()
def unwoven(world, prompts):
    """What transformers makes of prompts with a copy of the base that was never touched."""
    _, inputs = laid_out(world.model, prompts)
    ids = world.plain.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    said = world.model.base.tokenizer.batch_decode(
        ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return world.plain(**inputs).logits, [text.strip() for text in said]


def special(world):
    """Ids that a random model might say, and that stand for media or turns."""
    tokenizer = world.model.base.tokenizer
    return sorted({*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids})


def same(one, other):
    return torch.equal(one[0], other[0]) and one[1] == other[1]


def test_the_base_is_what_it_was(world):
    after = outputs(world.model, world.text), outputs(world.model, world.seen)
    assert all(map(same, world.before, after))
    assert all(p.grad is None for p in world.model.llm.parameters())
    assert not any(p.requires_grad for p in world.model.llm.parameters())


def test_both_paths_learn(world):
    for losses in world.losses.values():
        assert losses[-1] < losses[0]
    assert world.no_gradient == []


def test_the_first_path_is_what_it_was_before_the_second(world):
    after = outputs(world.model, world.sound), outputs(world.model, world.both)
    assert all(map(same, world.first, after))
    other = [[*world.sound[0][:1], medium("range", seed=1), *world.sound[0][2:]]]
    assert not torch.equal(outputs(world.model, other)[0][:, -1], after[0][0][:, -1])


def prompts(world):
    asked = [
        world.text[0],
        world.sound[0],
        [native(world.kind), medium("range", seed=5), "Which?"],
        [medium("range", seed=6), "Far?"],
        [medium("sound", seed=7), "or", medium("range", seed=8), "?"],
        world.seen[0],
    ]
    return asked


@torch.no_grad()
def test_a_mixed_batch_is_as_single_prompts(world):
    model, asked = world.model, prompts(world)
    # Mllama reads one number of pictures a batch; to Phi-4 a picture's place in a batch is not all
    # the same, with or without paths.
    if world.name in ("mllama", "phi4_multimodal"):
        asked = [p for p in asked if not any(p is q for q in (asked[2], asked[5]))]
    logits, said = outputs(model, asked)
    for row, prompt, answer in zip(logits, asked, said, strict=True):
        alone, [own] = outputs(model, [prompt])
        torch.testing.assert_close(row[-1], alone[0, -1], atol=2e-3, rtol=1e-3)
        assert answer == own


# Recurrent layers keep a state that is no list of tokens; transformers reads them in one piece.
RECURRENT = ("lfm2_vl", "qwen3_5")
WAYS = {
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "in pieces": {"prefill_chunk_size": 4},
}


def ways_to_search(name, beams):
    """Those that transformers has for a family, beside the usual one."""
    if beams > 1 or name in RECURRENT:
        return ["no cache"]
    whole = name in ("gemma3", "gemma4", "paligemma", "mllama")  # it reads their prompts whole
    return [way for way in WAYS if not (whole and way == "in pieces")]


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
def test_answers_do_not_depend_on_how_they_are_searched(world, beams):
    model = world.model
    asked = [world.sound, [[medium("sound"), "or", medium("range"), "?"]], world.both]

    def searched(prompt, **settings):
        ride, inputs = laid_out(model, prompt)
        with carrying(ride):
            ids = model.llm.generate(
                **inputs, max_new_tokens=TOKENS, do_sample=False, num_beams=beams, **settings,
                suppress_tokens=special(world),
            )  # fmt: skip
        return ids[:, inputs["input_ids"].shape[1] :].tolist()

    usual = [searched(prompt) for prompt in asked]
    for way in ways_to_search(world.name, beams):
        # A prompt with a picture is searched in the usual way and without a cache.
        prompts = asked if way == "no cache" else asked[:2]
        assert [searched(prompt, **WAYS[way]) for prompt in prompts] == usual[: len(prompts)], way


def test_threads_do_not_see_each_other(world):
    jobs = [[p] for p in prompts(world)[:5]]
    expected = [outputs(world.model, job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, expected, pool.map(lambda job: outputs(world.model, job), jobs)))


@torch.no_grad()
def test_the_likelihood_of_an_answer_is_that_of_its_words(world):
    model = world.model
    ranked = log_likelihoods(model, world.sound, ["a dog", "no"])[0]
    whole = torch.stack([-model(world.sound, [answer])[0] for answer in ("a dog", "no")])
    torch.testing.assert_close(ranked, whole, atol=1e-3, rtol=1e-4)
    # The first word after the prompt, as a language model that writes it would weigh it.
    logits, _ = outputs(model, world.sound)
    first = model.answer_ids("no")[:1]
    one = logits[0, -1].float().log_softmax(-1)[first]
    answers = torch.cat([model.answer_ids("no")])
    if len(answers) == 2:
        assert ranked[1] <= one.item() + 1e-4


def test_saving_the_base_saves_what_it_was(world, tmp_path):
    world.model.llm.save_pretrained(tmp_path)
    again = load_vision_llm(tmp_path).model
    names = dict(world.plain.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, names[name])


def test_paths_are_saved_and_loaded_and_another_base_is_refused(world, tmp_path):
    model, base = world.model, world.model.base
    for path in model.paths:
        save_path(path, model.paths, tmp_path / path.spec.name, base.fingerprint())
    again = PathWeave(base, model.cues)
    for name in model.paths.names:
        load_path(tmp_path / name, again.paths, base.fingerprint())
    assert same(outputs(again.eval(), world.both), outputs(model, world.both))
    other = replace(base, template=Template(chat="another"))
    with pytest.raises(BaseMismatchError, match="load the base it was trained with"):
        load_path(tmp_path / "sound", PathWeave(other).paths, other.fingerprint())


def test_the_model_can_be_copied(world):
    twin = copy.deepcopy(world.model)
    assert same(outputs(twin, world.sound), outputs(world.model, world.sound))
