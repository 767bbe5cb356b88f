"""Bases as shapes, from tables, directories and configurations alone."""

import pytest
import transformers as hf

from pathweave.bases import hub
from pathweave.errors import FetchError, RecipeError
from pathweave.estimate.estimate import estimate_recipe
from pathweave.estimate.shapes import shape_model
from pathweave.recipe.reading import parse_recipe
from tests.tiny import WIDTH, chain, tiny_base, tiny_model, write_tiny_base

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"hidden_size": 24, "intermediate_size": 40, "image_size": 28, "patch_size": 14, **LAYERS}
QFORMER = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "encoder_hidden_size": 24,
    **LAYERS,
}
LLM = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 88, **LAYERS}


def recipe(base, **changes):
    sense = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}
    tree = {"name": "t", "base": str(base), "modalities": {"sense": sense}, **changes}
    return parse_recipe({"curriculum": ["sense"], "method": {"queries": 3}, **tree})


def blip(kind, text_config):
    config = {"instructblip": hf.InstructBlipConfig, "blip-2": hf.Blip2Config}[kind]
    return config(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=text_config,
        num_query_tokens=3,
        image_token_index=1,
    )


def counts(model):
    return {
        part: sum(p.numel() for p in module.parameters())
        for part, module in model.named_children()
        if part != "paths"
    }


def test_nothing_is_allocated():
    model = shape_model(recipe("mini"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert not any(p.requires_grad for p in model.parameters())


def test_a_directory_of_our_own(tmp_path):
    base = write_tiny_base(tmp_path / "base")
    assert counts(shape_model(recipe(base))) == counts(tiny_model())


@pytest.mark.parametrize("kind", ["instructblip", "blip-2"])
def test_a_directory_of_transformers_needs_its_configuration_alone(tmp_path, kind):
    config = blip(kind, hf.LlamaConfig(**LLM, num_key_value_heads=2))
    config.save_pretrained(tmp_path)
    model = shape_model(recipe(tmp_path))
    whole = {
        "instructblip": hf.InstructBlipForConditionalGeneration,
        "blip-2": hf.Blip2ForConditionalGeneration,
    }[kind](config)
    theirs = {
        "llm": whole.language_model,
        "qformer": whole.qformer,
        "projector": whole.language_projection,
    }
    expected = {name: sum(p.numel() for p in part.parameters()) for name, part in theirs.items()}
    assert counts(model) == expected
    path = model.paths["image"]
    assert (path.spec.encoder_width, path.spec.num_queries, path.spec.rank) == (24, 3, 0)
    assert (model.qformer.shape.vocab_size is None) == (kind == "blip-2")


def test_another_language_model_changes_the_projector(tmp_path):
    hf.LlamaConfig(**{**LLM, "hidden_size": 48}, num_key_value_heads=2).save_pretrained(tmp_path)
    model = shape_model(recipe("mini", llm=str(tmp_path)))
    assert model.llm.config.hidden_size == model.projector.linear.host.out_features == 48
    gemma = shape_model(recipe("mini", llm="gemma-3-270m")).llm
    assert sum(p.numel() for p in gemma.parameters()) == 268_098_176
    assert gemma.config.layer_types.count("full_attention") == 3
    with pytest.raises(RecipeError, match="got 'gemma-270m'; did you mean 'gemma-3-270m'"):
        shape_model(recipe("mini", llm="gemma-270m"))
    named = shape_model(recipe("mini", llm="lmsys/vicuna-7b-v1.1"))
    assert named.llm.config.vocab_size == 32_000


def test_a_quantised_language_model_takes_less():
    plain, eight, four = (
        estimate_recipe(recipe("mini", llm="lmsys/vicuna-7b-v1.1", quantise=q)).stages[0].inference
        for q in (None, "8bit", "4bit")
    )
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert plain.llm - eight.llm == matrices
    assert plain.llm - four.llm == matrices * 3 // 2


@pytest.mark.parametrize("config", [hf.T5Config(d_model=16, num_heads=2), hf.CLIPVisionConfig()])
def test_a_language_model_that_is_no_decoder_is_refused(tmp_path, config):
    blip("blip-2", config).save_pretrained(tmp_path)
    what = rf"must be causal \(decoder only\), got '{config.model_type}'"
    with pytest.raises(RecipeError, match=what):
        shape_model(recipe(tmp_path))


def test_another_kind_of_model_is_refused(tmp_path):
    hf.LlamaConfig(**LLM).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="must hold an InstructBLIP or a BLIP-2"):
        shape_model(recipe(tmp_path))


def test_a_directory_without_configuration_is_refused(tmp_path):
    with pytest.raises(FetchError, match=r"must hold the config\.json of a model"):
        shape_model(recipe(tmp_path))


def test_an_unknown_base_is_refused():
    with pytest.raises(RecipeError, match=r"base must be one of .*mini.*did you mean 'mini'"):
        shape_model(recipe("minni"))


def test_a_model_of_the_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    with pytest.raises(FetchError, match=r"nobody/nothing/config\.json cannot be downloaded"):
        shape_model(recipe("nobody/nothing"))


def test_a_base_that_trains_its_connector_counts_it():
    [stage] = estimate_recipe(recipe("mini", training={"connector": True})).stages
    assert stage.trained.connector == 33_721_152
    assert stage.trained.total == stage.full_tuning
    assert stage.reduction == 0


def test_stages_count_what_the_real_path_has(tmp_path):
    base = write_tiny_base(tmp_path / "base")
    sense = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}
    names = ("sight", "sound", "range")
    tree = recipe(
        base,
        modalities=dict.fromkeys(names, sense),
        curriculum=list(names),
        method={"queries": 3, "rank": 4, "plain_sites": []},
    )
    specs = chain("none", *names, positions="sinusoidal")
    real = tiny_model(*[spec for spec in specs if spec.name != "none"])
    for stage in estimate_recipe(tree).stages:
        path = real.paths[stage.modality]
        assert stage.trained.total == sum(p.numel() for p in path.parameters())
    assert tiny_base().qformer.shape == shape_model(tree).qformer.shape
