import json
import shutil

import pytest

from pathweave.errors import RecipeError, RunError
from pathweave.recipe.reading import load_recipe
from pathweave.runs.run_directory import RunDirectory, differences


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


def test_a_claimed_directory_gives_the_recipe_back(recipe, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.claim(recipe)
    run.claim(recipe)
    assert run.recipe() == recipe
    assert run.finished(recipe) == []


def test_another_recipe_is_refused_by_the_fields_that_differ(recipe_file, recipe, tmp_path):
    run = RunDirectory(tmp_path)
    run.claim(recipe)
    other = load_recipe(recipe_file, {"seed": 7, "method.rank": 3})
    with pytest.raises(RunError, match=r"got another value of seed, method\.rank; choose another"):
        run.claim(other)
    assert run.recipe() == recipe


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_run_goes_on_with_its_data_in_another_place(recipe_file, tmp_path, is_gone):
    for place in ("one", "other"):
        shutil.copytree(recipe_file.parent, tmp_path / place / "data")
    here, there = (tmp_path / place / "data" / recipe_file.name for place in ("one", "other"))
    run = RunDirectory(tmp_path / "run")
    run.claim(load_recipe(here))
    if is_gone:
        shutil.rmtree(tmp_path / "one")
    run.claim(load_recipe(there))
    assert run.recipe() == load_recipe(there)


def test_other_data_of_the_same_name_are_refused(recipe_file, tmp_path):
    for place in ("one", "other"):
        shutil.copytree(recipe_file.parent, tmp_path / place)
    run = RunDirectory(tmp_path / "run")
    run.claim(load_recipe(tmp_path / "one" / recipe_file.name))
    with (tmp_path / "other/sound-train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    other = load_recipe(tmp_path / "other" / recipe_file.name)
    with pytest.raises(RunError, match=r"another value of modalities\.sound\.train\.qa\.manifest;"):
        run.claim(other)
    renamed = {"modalities.sound.train.qa.manifest": "sound-test.jsonl"}
    with pytest.raises(RunError, match=r"another value of modalities\.sound\.train\.qa\.manifest;"):
        run.claim(load_recipe(tmp_path / "one" / recipe_file.name, renamed))


def test_stages_are_finished_in_order(finished_run, recipe, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert run.finished(recipe) == ["sight", "sound", "tilt"]
    run.path("sound").rename(run.paths / ".sound.old")  # where a kill leaves one being replaced
    assert run.finished(recipe) == ["sight", "sound", "tilt"]
    (run.path("sound") / "path.json").unlink()
    assert run.finished(recipe) == ["sight"]


def test_what_is_no_run_is_refused(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(RunError, match=r"must be the directory of a run .*No such file.*evolve"):
        run.recipe()
    run.recipe_file.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="must be the directory of a run"):
        run.recipe()
    run.recipe_file.write_text(json.dumps({"name": "tiny"}), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipe.json: modalities: "):
        run.recipe()


def test_differences_name_fields_on_either_side():
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 3, "d": 4}}) == ["a", "b.c", "b.d"]
    assert differences([1], [2], "at") == ["at"]
