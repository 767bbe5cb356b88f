import shutil

import pytest
import torch

from pathweave.encoders import Precomputed
from pathweave.errors import FetchError, PathError, RecipeError
from pathweave.evaluate.verify import verify_run
from pathweave.runs.loading import (
    load_base,
    load_finished,
    load_run,
    make_readers,
    model_directory,
    new_model,
)
from pathweave.runs.run_directory import RunDirectory
from tests.published import WIDTH, picture_bytes, write_llm, write_published

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
