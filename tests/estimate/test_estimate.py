"""A step and an answer are said to cost what they cost on a tiny model with real numbers."""

from types import SimpleNamespace

import pytest
import torch

from pathweave.bases.mini import attention
from pathweave.estimate.encoders import UNKNOWN_TOKENS
from pathweave.estimate.estimate import estimate_recipe
from pathweave.estimate.shapes import shape_model
from pathweave.methods.settings import Training
from pathweave.model.base import save_base
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Template
from pathweave.nn import Gate
from pathweave.recipe.reading import load_recipe, parse_recipe
from pathweave.train.schedule import make_optimizer
from tests.estimate.measure import measured_flops, saved_bytes
from tests.tiny import WIDTH, medium, randomise, tiny_base, write_tiny_recipe

TEXT, ANSWER, BATCH = 9, 6, 3
TOKENS = UNKNOWN_TOKENS


@pytest.fixture(scope="module")
def cost(tmp_path_factory):
    """The cost of the third stage of a tiny run, whose Q-Former reads no text."""
    recipe = write_tiny_recipe(tmp_path_factory.mktemp("real") / "run", "sight", "sound", "tilt")
    save_base(tiny_base(text=False), recipe.parent / "bare", whole=True)
    changes = {"base": str(recipe.parent / "bare"), "method.plain_sites": []}
    return estimate_recipe(load_recipe(recipe, changes), 1, BATCH, TEXT, ANSWER).stages[2]


@pytest.fixture
def real():
    """The same with numbers: the model, a prompt, an answer, and what the stage trains."""
    base = tiny_base(text=False)
    base.template = Template()
    base.llm.bfloat16()
    model = PathWeave(base)
    for name, rank, earlier in (("sight", 0, ()), ("sound", 2, ()), ("tilt", 2, ("sound",))):
        spec = PathSpec(
            name, WIDTH, num_queries=2, rank=rank, predecessors=earlier, positions="sinusoidal"
        )
        randomise(model.paths.expand(spec))
    path = model.paths["tilt"]
    # A token is a letter, and the space before the text is one too.
    prompt = [medium("tilt", tokens=TOKENS), "a" * (TEXT - 1)]
    return SimpleNamespace(model=model.eval(), path=path, prompt=prompt, answer="b" * (ANSWER - 2))


def test_an_answer(cost, real):
    media = [real.prompt[0]] * BATCH
    with torch.no_grad():
        soft = real.model.soft_tokens
        soft(media[:1], [""])  # the correction of a host is put together once and for all
        alone, _ = measured_flops(lambda: torch.cat(soft(media[:1], [""])))
        whole, _ = measured_flops(lambda: torch.cat(soft(media, [""] * BATCH)))
        counts = [
            measured_flops(lambda n=n: write(real, n).sequences)[0] - alone for n in (1, ANSWER)
        ]
    assert cost.answer.connector == whole // BATCH
    assert cost.answer.llm == counts[0]
    assert cost.answer.decoding == counts[1] - counts[0]


def write(real, tokens, batch=1):
    """Write so many tokens, greedily."""
    embeds = torch.stack(real.model.embed_prompts([real.prompt] * batch)).to(real.model.llm.dtype)
    return real.model.llm.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        return_dict_in_generate=True,
    )


def test_keys_and_values_of_a_batch_of_answers(cost, real):
    made = write(real, ANSWER, BATCH)
    assert made.sequences.shape == (BATCH, ANSWER)
    kept = [t for layer in made.cache.layers for t in (layer.keys, layer.values)]
    assert cost.inference.keys_and_values == sum(t.nbytes for t in kept)


def test_a_step(cost, real):
    real.path.requires_grad_(True)
    model = real.model.train()
    prompts = [real.prompt] * BATCH

    def connect():
        return torch.cat(model.soft_tokens([real.prompt[0]] * BATCH, [""] * BATCH))

    def step():
        return model(prompts, [real.answer] * BATCH)[0]

    connector, whole = sum(measured_flops(connect)), sum(measured_flops(step))
    assert cost.load.sequence == len(model.embed_prompts(prompts)[0]) + ANSWER
    assert cost.step.connector == connector // BATCH
    assert cost.step.llm == (whole - connector) // BATCH
    assert cost.training.activations == saved_bytes(model, step)


def test_the_state_of_the_optimiser(cost, real):
    trained = torch.nn.ModuleDict({"path": real.path}).requires_grad_(True)
    optimizer = make_optimizer(trained, Training())
    for parameter in trained.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = [t for each in optimizer.state.values() for n, t in each.items() if n != "step"]
    assert any(isinstance(module, Gate) for module in trained.modules())
    assert cost.training.optimizer == sum(t.nbytes for t in state)
    assert cost.training.gradients == sum(p.grad.nbytes for p in trained.parameters())


def test_attention_is_that_of_the_base():
    sense = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}
    tree = {"name": "t", "modalities": {"sense": sense}, "curriculum": ["sense"], "base": "mini"}
    own = shape_model(parse_recipe(tree)).llm.config
    assert own._attn_implementation == attention()
    other = shape_model(parse_recipe({**tree, "llm": "lmsys/vicuna-7b-v1.1"})).llm.config
    assert other._attn_implementation == "sdpa"


def test_offloaded_moments_count_only_where_they_exceed_the_activations(tmp_path):
    recipe = write_tiny_recipe(tmp_path, "sight", "sound")
    held, away = (
        [stage.training for stage in estimate_recipe(load_recipe(recipe, changes), 1, 1).stages]
        for changes in ({}, {"training.offload_optimizer": True})
    )
    for before, after in zip(held, away, strict=True):
        assert after.optimizer == max(0, before.optimizer - before.activations)
        assert before.total - after.total == min(before.optimizer, before.activations) > 0
