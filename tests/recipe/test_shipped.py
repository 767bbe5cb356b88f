"""Recipes that ship are found by name from everywhere; files of the user are never hidden."""

from pathlib import Path

import pytest
import yaml

from pathweave.compare.grid import load_grid
from pathweave.errors import RecipeError
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.shipped import SHIPPED, describe_shipped, find_recipe, shipped_recipes
from tests.tiny import write_tiny_recipe
from tests.whole_runs import command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_clone_ships_its_recipes_with_the_data_and_examples_beside_them():
    assert Path(__file__).parents[2] == SHIPPED
    assert {"mcl_mini", "mcl_grid", "methods/ewc", "ablations/rank_8"} <= shipped_recipes().keys()
    assert (SHIPPED / "data/mcl-mini/checksums.json").is_file()
    assert (SHIPPED / "examples/questions.jsonl").is_file()


def test_a_recipe_is_read_by_its_name_as_by_its_file():
    assert load_recipe(Path("mcl_mini")) == load_recipe(SHIPPED / "recipes/mcl_mini.yaml")
    assert load_recipe(Path("methods/ewc")).method.name == "ewc"


def test_a_grid_is_read_by_its_name_as_by_its_file():
    assert load_grid(Path("mcl_grid_full")) == load_grid(SHIPPED / "recipes/mcl_grid_full.yaml")


def test_a_file_of_the_user_comes_first(elsewhere):
    write_tiny_recipe(elsewhere, "sight").rename(elsewhere / "mcl_mini")
    assert load_recipe(Path("mcl_mini")).name == "tiny"


def test_a_directory_of_that_name_is_no_recipe(elsewhere):
    (elsewhere / "mcl_mini").mkdir()
    assert load_recipe(Path("mcl_mini")).name == "MCL-mini"


def test_a_name_beside_which_there_is_another_recipe_is_refused(elsewhere):
    write_tiny_recipe(elsewhere, "sight").rename(elsewhere / "mcl_mini.yaml")
    with pytest.raises(RecipeError, match=r"must be one recipe, got the one that ships and mcl_m"):
        load_recipe(Path("mcl_mini"))
    assert load_recipe(Path("mcl_mini.yaml")).name == "tiny"


def test_among_the_recipes_themselves_a_name_is_clear(monkeypatch):
    monkeypatch.chdir(SHIPPED / "recipes")
    assert find_recipe(Path("mcl_mini")).samefile("mcl_mini.yaml")


def test_own_recipes_and_grids_build_on_those_that_ship(elsewhere):
    (elsewhere / "own").mkdir()
    own = {"extends": "mcl_mini", "name": "own", "training": {"lr": 0.25}}
    (elsewhere / "own/recipe.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    recipe = load_recipe(Path("own/recipe.yaml"))
    assert recipe.training.lr == 0.25
    assert Path(recipe.modalities["audio"].train["qa"].manifest).is_file()
    grid = {
        "name": "own",
        "recipe": "mcl_mini",
        "seeds": [0],
        "methods": {"ours": {}, "ewc": {"recipe": "methods/ewc"}},
        "orders": {"main": ["image", "audio"]},
    }
    (elsewhere / "own/grid.yaml").write_text(
        yaml.safe_dump(grid, sort_keys=False), encoding="utf-8"
    )
    cells = load_grid(Path("own/grid.yaml")).cells
    assert [cell.recipe.method.name for cell in cells] == ["pathweave", "ewc"]


@pytest.mark.parametrize("typed", ["mcl_mni", "mcl_mni.yaml", "recipes/mcl_mini.yaml"])
def test_a_name_that_does_not_exist_leads_to_the_one_that_does(typed):
    with pytest.raises(RecipeError, match=r"got No such file.*ship; did you mean 'mcl_mini'\?$"):
        load_recipe(Path(typed))


@pytest.mark.parametrize("typed", ["", ".", "..", "/"])
def test_a_directory_is_refused_as_such(typed):
    with pytest.raises(RecipeError, match="must be a recipe, got Is a directory; pathweave recip"):
        load_recipe(Path(typed))


def test_the_command_of_each_is_the_one_that_reads_it():
    readers = {"evolve": load_recipe, "compare": load_grid}
    described = describe_shipped()
    assert {each["command"] for each in described} == readers.keys()
    for each in described:
        assert len(each["title"]) > 10
        other = readers["compare" if each["command"] == "evolve" else "evolve"]
        with pytest.raises(RecipeError):
            other(Path(each["name"]))


def test_the_command_line_lists_what_ships_and_where(capsys):
    assert command("recipes") == 0
    shown = capsys.readouterr().out
    assert f"recipes/, data/ and examples/ are in {SHIPPED}" in shown
    assert all(name in shown for name in shipped_recipes())


@pytest.mark.parametrize(
    "words",
    [
        ("evolve", "mcl_mini", "--out", "run", "--dry-run"),
        ("estimate", "mcl_mini"),
        ("curve", "mcl_mini", "--samples", "all", "--out", "curve", "--dry-run"),
        ("extend", "mini", "mcl_mini", "--out", "run"),
    ],
    ids=lambda words: words[0],
)
def test_commands_take_names(words, capsys):
    assert command(*words, "--set", "training.stepz=3") == 2
    assert "mcl_mini.yaml: field training.stepz must be one of" in capsys.readouterr().err


def test_compare_takes_names(capsys):
    assert command("compare", "mcl_grid", "--out", "grid", "--dry-run") == 0
    assert "0 of 60 cells done" in capsys.readouterr().out
