"""A step and an answer of a vision LLM are said to cost what they cost with real numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pathweave.bases.llm import read_config
from pathweave.bases.vision_llm import base_of, open_vision_llm, picture_kind, vision_llm_of
from pathweave.encoders import BaseTower
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.media import Frames
from pathweave.errors import PathWeaveError, RecipeError
from pathweave.estimate.encoders import SIDE, UNKNOWN_TOKENS, features_of
from pathweave.estimate.estimate import estimate_recipe
from pathweave.methods.pathweave import expand
from pathweave.model.pathweave import PathWeave
from pathweave.nn.hooked import carrying
from pathweave.recipe.reading import parse_recipe
from pathweave.recipe.schema import Modality
from tests.estimate.measure import measured_flops, saved_bytes
from tests.tiny import WIDTH, byte_tokenizer, medium, randomise
from tests.vision_llms import WITH_PROCESSOR, write_vision_llm

TEXT, ANSWER, BATCH = 9, 6, 3
SENSE = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}


def recipe_of(base, **changes):
    tree = {
        "name": "t",
        "base": str(base),
        "modalities": {"sound": SENSE, "tilt": SENSE},
        "curriculum": ["sound", "tilt"],
        "method": {"queries": 2, "rank": 2, "reducer": {"layers": 1, "width": 16}},
    }
    return parse_recipe(tree | changes)


# With a tail, and with adapters in it; without one.
@pytest.fixture(
    scope="module",
    params=[("llava", ("llm/*/self_attn/*", "tail*")), ("llava", ("*",)), ("gemma3", ("*",))],
    ids=["llava, tail too", "llava", "gemma3"],
)
def world(request, tmp_path_factory):
    """The cost of the second stage, and the same with numbers."""
    name, sites = request.param
    directory = write_vision_llm(tmp_path_factory.mktemp(name), name)
    recipe = recipe_of(directory)
    recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"sites": sites})})
    cost = estimate_recipe(recipe, 1, BATCH, TEXT, ANSWER)
    torch.manual_seed(0)
    llm = vision_llm_of(read_config(directory), directory, torch.bfloat16)
    model = PathWeave(base_of(llm, byte_tokenizer(), recipe.method.reducer.shape))
    for sense in recipe.curriculum:
        trained = expand(model, recipe, sense, WIDTH)
        randomise(model.paths[sense])
    # A token is a letter, and the space before the text is one too.
    prompt = [medium("tilt", tokens=UNKNOWN_TOKENS), "a" * (TEXT - 1)]
    return SimpleNamespace(
        cost=cost, stage=cost.stages[1], model=model.eval(), trained=trained, prompt=prompt
    )


def test_parameters(world):
    assert world.stage.trained.total == sum(p.numel() for p in world.trained.parameters())
    llm = sum(p.numel() for p in world.model.llm.parameters())
    assert world.cost.llm_parameters == llm  # the tower among them
    assert world.stage.inference.llm == 2 * llm


def test_a_step(world):
    model = world.model.train()
    world.trained.requires_grad_(True)
    prompts = [world.prompt] * BATCH

    def step():
        return model(prompts, ["b" * (ANSWER - 2)] * BATCH)[0]

    assert world.stage.step.total == sum(measured_flops(step)) // BATCH
    # But for the masks of single layers that some models make.
    assert world.stage.training.activations == pytest.approx(saved_bytes(model, step), rel=0.01)
    world.trained.requires_grad_(False)
    model.eval()


def test_an_answer(world):
    model = world.model
    laid_out = model.lay_out([world.prompt])
    ids = torch.tensor([sum(laid_out.rows[0], ())])

    def write(tokens):
        def run():
            with carrying(laid_out.ride):
                return model.llm.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                )

        with torch.no_grad():
            return measured_flops(run)[0]

    one, all_of_it = write(1), write(ANSWER)
    assert world.stage.answer.llm == one
    assert world.stage.answer.decoding == all_of_it - one


HEAT = {"decoder": {"kind": "picture"}, "encoder": {"kind": "base"}}


@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_the_tower_as_an_encoder(name, tmp_path):
    if name == "phi4_multimodal":
        pytest.skip("its tower has no name")
    directory = write_vision_llm(tmp_path, name)
    opened = open_vision_llm(directory, dtype=torch.bfloat16)
    features = features_of(Modality.model_validate(HEAT), str(directory))
    tower = BaseTower(reader=VisionLlmReader(*opened[:2], picture_kind(opened.native)))
    blank = Frames(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    flops, _ = measured_flops(lambda: tower([blank])[0])
    [made] = tower([blank])
    assert (features.units, features.tokens, features.width) == made.shape
    assert features.flops == flops
    assert features.weight_bytes == 0  # it is held with the base


def test_a_base_without_a_tower_is_no_encoder(tmp_path):
    with pytest.raises(RecipeError, match="encoder 'base' must go with a vision LLM as base"):
        features_of(Modality.model_validate(HEAT), "mini")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm": "lmsys/vicuna-7b-v1.1"}, "llm must be left out where the base is a vision LLM"),
        ({"method": {"name": "sequential"}}, "must leave a shared connector alone"),
        ({"method": {"sites": ["llm/*/nothing"]}}, "sites"),
    ],
)
def test_what_a_run_would_refuse_is_refused(changes, message, tmp_path):
    directory = write_vision_llm(tmp_path, "llava")
    with pytest.raises(PathWeaveError, match=message):
        estimate_recipe(recipe_of(directory, **changes))
