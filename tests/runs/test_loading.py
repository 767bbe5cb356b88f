import shutil
from types import SimpleNamespace

import pytest
import torch

from pathweave.bases.shards import Shards
from pathweave.encoders import Precomputed
from pathweave.errors import FetchError, PathError, RecipeError, RunError
from pathweave.evaluate.verify import verify_run
from pathweave.model.base import sampled_hash
from pathweave.recipe.reading import dump_recipe, load_recipe
from pathweave.runs import loading
from pathweave.runs.loading import (
    llm_place,
    load_base,
    load_finished,
    load_run,
    make_readers,
    model_directory,
    new_model,
    refuse_hosts,
)
from pathweave.runs.run_directory import RunDirectory
from tests.published import WIDTH, picture_bytes, write_llm, write_published
from tests.tiny import FAMILIES, byte_tokenizer, chain, tiny_llm, tiny_model
from tests.vision_llms import write_vision_llm

pytestmark = pytest.mark.usefixtures("home")


def test_a_base_is_a_directory_or_has_a_known_name(recipe_file):
    base = load_base(str(recipe_file.parent / "base"))
    assert base.kind == "tiny"
    assert not any(p.requires_grad for p in base.llm.parameters())
    with pytest.raises(RecipeError, match=r"must be one of .* got 'minj'; did you mean 'mini'"):
        load_base("minj")


def test_a_base_is_the_same_in_every_type_of_numbers(recipe_file):
    base = load_base(str(recipe_file.parent / "base"))
    before = base.fingerprint()
    base.llm.to(torch.bfloat16)
    assert base.fingerprint() == before


def test_a_run_gives_its_paths_and_those_they_build_on(finished_run):
    model, recipe = load_run(finished_run)
    assert model.paths.names == list(recipe.curriculum)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert load_run(finished_run, ["tilt"])[0].paths.names == ["sound", "tilt"]
    assert load_run(finished_run, ["sight"])[0].paths.names == ["sight"]
    with pytest.raises(PathError, match=r"the run must find path 'tild', got \['sight', "):
        load_run(finished_run, ["tild"])


def test_a_run_that_goes_on_is_frozen_as_it_was_when_its_proofs_were_recorded(finished_run):
    run = RunDirectory(finished_run)
    model = new_model(run.recipe())
    assert load_finished(model, run, run.recipe()) == list(run.recipe().curriculum)
    assert not any(p.requires_grad for p in model.parameters())
    assert all(verdict.identical for verdict in verify_run(model, run, model.paths.names))


def test_paths_after_a_gap_are_not_loaded(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "paths" / "sight")
    assert load_run(run)[0].paths.names == []


def test_readers_are_built_when_first_used(finished_run):
    _, recipe = load_run(finished_run)
    readers = make_readers(recipe)
    assert list(readers) == list(recipe.modalities)
    assert readers["sound"] is readers["sound"]
    assert readers["sound"].encoder is readers["tilt"].encoder


def test_a_pretrained_base_brings_a_path_and_its_reader(tmp_path):
    published = write_published(tmp_path, "instructblip-opt")
    base = load_base(str(published.directory))
    assert [path.spec.name for path in base.ready_paths] == ["image"]
    readers = make_readers(None, base)
    assert list(readers) == ["image"]
    [features] = readers["image"].read([(picture_bytes(), "picture.png")])
    assert features.shape == (1, 5, WIDTH)


def test_a_declared_modality_goes_before_that_of_the_base(finished_run, tmp_path):
    base = load_base(str(write_published(tmp_path, "blip2-opt").directory))
    _, recipe = load_run(finished_run)
    assert list(make_readers(recipe, base)) == ["image", *recipe.modalities]
    own = recipe.modalities["sound"]
    declared = recipe.model_copy(update={"modalities": {"image": own}})
    assert isinstance(make_readers(declared, base)["image"].encoder, Precomputed)


def test_quantising_is_for_language_models_that_are_loaded_by_name(recipe_file):
    with pytest.raises(RecipeError, match=r"quantise must go with an .* or with llm, got base"):
        load_base(str(recipe_file.parent / "base"), quantise="8bit")


def test_any_base_takes_another_language_model(recipe_file, tmp_path):
    write_llm(tmp_path, "opt")
    base = load_base(str(recipe_file.parent / "base"), llm=str(tmp_path))
    assert (base.kind, base.llm.config.model_type) == ("tiny", "opt")
    assert not base.fresh_projector


def test_a_language_model_may_be_named_as_its_weights_are(recipe_file, tmp_path, monkeypatch):
    base = str(recipe_file.parent / "base")
    with pytest.raises(RecipeError, match="got 'gemma-3-270'; did you mean 'gemma-3-270m'"):
        load_base(base, llm="gemma-3-270")
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path))
    with pytest.raises(FetchError, match="terms of gemma-3-270m must be accepted"):
        load_base(base, llm="gemma-3-270m")
    with pytest.raises(FetchError, match=r"got none; run pathweave fetch gemma-3-270m$"):
        model_directory("llm", "gemma-3-270m", fetch=False)
    with pytest.raises(RecipeError, match="base must be one of"):
        load_base("gemma-3-270m")


def test_the_licence_of_another_language_model_is_recorded(recipe_file, tmp_path):
    write_llm(tmp_path, "opt")
    base = load_base(str(recipe_file.parent / "base"), llm=str(tmp_path))
    assert base.licences["llm"] == "not stated"


def words_alone(monkeypatch, make, dtype=torch.float32):
    """The base with its language model's layers, and without, where numbers are of a type."""
    for module in ("bases.llm", "bases.mini", "runs.loading"):
        monkeypatch.setattr(f"pathweave.{module}.native_dtype", lambda: dtype)
    return make(True), make(False)


def check_alike(whole, words, stored):
    assert whole.fingerprint() == words.fingerprint()
    assert whole.projector.scale == words.projector.scale
    assert whole.llm.dtype == words.llm.dtype
    embed, alone = whole.llm.get_input_embeddings(), words.llm.get_input_embeddings()
    ids = torch.arange(embed.num_embeddings)
    assert torch.equal(embed(ids), alone(ids))
    assert embed(ids).dtype == whole.llm.dtype
    types = {p.dtype for p in words.llm.get_decoder().parameters() if p is not alone.weight}
    assert types == {stored}


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_layers_a_base_makes_the_same_embeddings(
    recipe_file, tmp_path, monkeypatch, family, dtype
):
    """Layers stay as they are stored, and the fingerprint tells the language model all the same."""
    tokenizer = byte_tokenizer()
    options = dict(FAMILIES[family])
    tiny_llm(tokenizer, options.pop("llm"), **options).bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base, llm = str(recipe_file.parent / "base"), str(tmp_path)
    monkeypatch.setattr("pathweave.runs.loading.language_models", lambda: (llm,))
    monkeypatch.setattr("pathweave.runs.loading.find_weights", lambda _: Known)
    both = words_alone(monkeypatch, lambda layers: load_base(base, llm=llm, layers=layers), dtype)
    check_alike(*both, torch.bfloat16)


class Known:
    licence = "CC0-1.0"


def test_the_other_kinds_of_bases_load_without_layers_too(recipe_file, tmp_path, monkeypatch):
    published = str(write_published(tmp_path, "instructblip-opt").directory)
    for base in (published, str(recipe_file.parent / "base")):
        both = words_alone(monkeypatch, lambda layers, b=base: load_base(b, layers=layers))
        check_alike(*both, torch.float32)


def test_a_quantised_language_model_is_told_by_what_is_stored(recipe_file, tmp_path):
    write_llm(tmp_path, "opt")
    words = load_base(
        str(recipe_file.parent / "base"), llm=str(tmp_path), quantise="8bit", layers=False
    )
    shards = Shards(tmp_path)
    assert words.llm_identity == sampled_hash(shards.read(shards.names), seed="8bit")
    assert not getattr(words.llm, "is_quantized", False)


def test_a_vision_llm_is_refused_without_layers(tmp_path):
    write_vision_llm(tmp_path, "llava")
    with pytest.raises(RecipeError, match=r"must read text alone, got the vision LLM .* --engine"):
        load_base(str(tmp_path), layers=False)


def test_another_language_model_is_refused_without_layers_too(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    recipe = RunDirectory(run).recipe()
    base = shutil.copytree(recipe.base, tmp_path / "base")
    torch.manual_seed(1234)  # another one than the run's, whatever was drawn before
    tiny_llm(byte_tokenizer()).save_pretrained(base / "llm")
    moved = recipe.model_copy(update={"base": str(base)})
    (run / "recipe.json").write_text(dump_recipe(moved), encoding="utf-8")
    with pytest.raises(PathError, match="must belong to this language model"):
        load_run(run, layers=False)


def test_paths_that_change_the_layers_are_refused_without_them():
    inside = tiny_model(*chain("sight", "sound", sites=("llm/*/q_proj",)))
    with pytest.raises(RunError, match=r"outside the language model .* got sound with some inside"):
        refuse_hosts(inside)
    refuse_hosts(tiny_model(*chain("sight", "sound")))


def test_the_place_of_a_language_model_by_itself(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file)
    base = recipe_file.parent / "base"
    assert llm_place(recipe) == str(base / "llm")
    published = write_published(tmp_path, "blip2-opt").directory
    assert llm_place(recipe.model_copy(update={"base": str(published)})) == "LLM"
    assert llm_place(recipe.model_copy(update={"llm": "owner/name"})) == "owner/name"


@pytest.mark.parametrize(("llm", "filled"), [(None, False), ("gemma-3-270m", True)])
def test_a_language_model_of_another_family_fills_what_its_file_lacks(
    llm, filled, tmp_path, monkeypatch
):
    seen = []

    def new_model(recipe, layers):
        seen.append(torch.nn.init.normal_(torch.zeros(2)).any().item())
        raise KeyError("enough")

    monkeypatch.setattr(loading, "new_model", new_model)
    recipe = SimpleNamespace(base="mini", llm=llm)
    monkeypatch.setattr(loading.RunDirectory, "recipe", lambda _: recipe)
    (tmp_path / "base").mkdir()
    with pytest.raises(KeyError, match="enough"):
        loading.load_run(tmp_path)
    assert seen == [filled]
