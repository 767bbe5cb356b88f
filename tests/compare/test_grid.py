"""What the file of a grid declares, and the grids of the repository."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from pathweave.compare.grid import load_grid, recipe_hash
from pathweave.compare.grid_report import marks
from pathweave.compare.shared import first_stage
from pathweave.errors import ManifestError, RecipeError
from pathweave.methods import METHODS as METHODS_OF_THE_PACKAGE
from pathweave.recipe.reading import load_recipe
from tests.compare.grids import write_grid

RECIPES = Path(__file__).parents[2] / "recipes"


def test_cells_are_methods_x_orders_x_seeds(tiny_recipe):
    orders = {
        "main": ["sight", "sound", "tilt"],
        "other": {"curriculum": ["sight", "tilt", "sound"], "methods": ["pathweave"]},
    }
    grid = load_grid(write_grid(tiny_recipe, orders=orders, set={"training.steps": 3}))
    names = [cell.name for cell in grid.cells]
    main = [f"{name}-main-seed{seed}" for seed in (0, 1) for name in ("pathweave", "adapters")]
    assert names == [*main, "pathweave-other-seed0", "pathweave-other-seed1"]
    last = grid.cells[-1]
    assert (last.recipe.seed, last.recipe.training.steps) == (1, 3)
    assert last.recipe.curriculum == ("sight", "tilt", "sound")
    assert grid.cells[1].recipe.method.name == "adapters"
    assert grid.about().num_cells == 6


def test_a_method_may_have_a_recipe_of_its_own(tiny_recipe, tmp_path):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    other = {"extends": "../recipe.yaml", "training": {"lr": 0.25}, "method": {"name": "ewc"}}
    (here / "methods").mkdir()
    (here / "methods/ewc.yaml").write_text(json.dumps(other), encoding="utf-8")
    ewc = {"recipe": "methods/ewc.yaml", "method.ewc.samples": 3}
    grid = write_grid(
        here / tiny_recipe.name,
        methods={"pathweave": {}, "ewc": ewc},
        seeds=[0],
        set={"training.steps": 3},
    )
    ours, theirs = (cell.recipe for cell in load_grid(grid).cells)
    assert (theirs.training.lr, theirs.training.steps, theirs.method.ewc.samples) == (0.25, 3, 3)
    assert (ours.method.name, theirs.method.name) == ("pathweave", "ewc")
    manifests = [recipe.modalities["sound"].train["qa"].manifest for recipe in (ours, theirs)]
    assert Path(manifests[0]).samefile(manifests[1])


def test_lengths_put_the_last_modality_after_the_first_ones(tiny_recipe):
    order = {"curriculum": ["sight", "sound", "tilt"], "lengths": [1]}
    grid = load_grid(write_grid(tiny_recipe, orders={"main": order}, seeds=[0]))
    curricula = {cell.order: cell.recipe.curriculum for cell in grid.cells}
    assert curricula == {"main": ("sight", "sound", "tilt"), "main_after1": ("sight", "tilt")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [1]}, r"field seed must be one of .*got 'seed'; did you mean 'seeds'\?"),
        ({"methods": {}}, "methods: .*at least 1"),
        ({"seeds": None}, "seeds: Field required"),
        ({"seeds": [1, 1]}, r"seeds must be different, got \[1, 1\]"),
        ({"seeds": [-1]}, r"seeds\.0: must be greater than or equal to 0, got -1"),
        ({"methods": {"A B": {}}}, "a name must be lower-case letters.*got 'A B'"),
        ({"reference": "pathweav"}, "reference must be one of .*did you mean 'pathweave'"),
        (
            {"orders": {"main": {"curriculum": ["sight"], "method": []}}},
            r"field orders\.main\.method must be one of .*did you mean 'methods'",
        ),
        (
            {"orders": {"main": {"curriculum": ["sight"], "methods": ["ewc"]}}},
            r"a method of orders\.main must be one of \['adapters', 'pathweave'\], got 'ewc'",
        ),
        (
            {"orders": {"main": {"curriculum": ["sight", "sound"], "lengths": [1]}}},
            r"a length of orders\.main must be in \[1, 0\], got 1",
        ),
        ({"orders": {"main": ["sight", "smell"]}}, r"method 'pathweave': .*got 'smell'"),
        (
            {"methods": {"ours": {"method.gat": None}}},
            r"grid\.yaml: method 'ours': .*field method\.gat must be .*did you mean 'gate'",
        ),
        ({"set": {"seed": 3}}, "seed must be given under seeds:, got an override of method"),
        (
            {"methods": {"ours": {"curriculum": ["sight"]}}},
            "curriculum must be given under orders:, got an override of method 'ours'; remove it",
        ),
        ({"recipe": "other.yaml"}, r"other\.yaml must be a recipe, got No such file"),
    ],
)
def test_a_bad_declaration_is_refused(tiny_recipe, tmp_path, changes, message):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    with pytest.raises(RecipeError, match=message):
        load_grid(write_grid(here / tiny_recipe.name, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold fields such as methods:, got list"),
        ("{", "must be YAML, got"),
        (None, "must be the file of a grid, got No such file"),
    ],
)
def test_a_file_that_is_no_grid_is_refused(tmp_path, text, message):
    file = tmp_path / "grid.yaml"
    if text:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        load_grid(file)


def test_the_hash_is_of_what_decides_the_results(tiny_recipe, tmp_path):
    here = load_recipe(tiny_recipe)
    moved = load_recipe(Path(shutil.copytree(tiny_recipe.parent, tmp_path / "m")) / "recipe.yaml")
    assert recipe_hash(moved) == recipe_hash(here)
    assert recipe_hash(here.model_copy(update={"name": "x", "bad_samples": 0.5})) == recipe_hash(
        here
    )
    changed = [load_recipe(tiny_recipe, {field: value}) for field, value in CHANGES.items()]
    hashes_of = {recipe_hash(recipe) for recipe in (here, *changed)}
    assert len(hashes_of) == 1 + len(CHANGES)
    manifest = Path(moved.modalities["tilt"].train["qa"].manifest)
    assert recipe_hash(moved.cut(2)) == recipe_hash(here.cut(2))
    manifest.write_text(
        "".join(manifest.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]),
        encoding="utf-8",
    )
    assert recipe_hash(moved) != recipe_hash(here)
    assert recipe_hash(moved.cut(2)) == recipe_hash(here.cut(2))
    manifest.unlink()
    with pytest.raises(ManifestError, match=r"tilt-train.jsonl must be a manifest, got No such"):
        recipe_hash(moved)


def test_a_modality_that_repeats_a_default_leaves_the_hash_as_it_is(tiny_recipe):
    def hash_of(**overrides):
        named = {name.replace("__", "."): value for name, value in overrides.items()}
        return recipe_hash(load_recipe(tiny_recipe, named))

    plain, repeated = hash_of(), hash_of(modalities__tilt__training={"max_update_rms": None})
    assert repeated == plain
    limited = hash_of(training__max_update_rms=1)
    but_tilt = hash_of(
        training__max_update_rms=1, modalities__tilt__training={"max_update_rms": None}
    )
    assert len({plain, limited, but_tilt}) == 3


CHANGES = {
    "seed": 1,
    "training.lr": 0.5,
    "method.gate": None,
    "curriculum": ["sight", "tilt", "sound"],
    "evaluation.subset": 3,
    "limit": 5,
}


def test_the_first_stage_is_the_same_where_its_settings_are(tiny_recipe, tmp_path):
    def directory(**overrides):
        named = {name.replace("__", "."): value for name, value in overrides.items()}
        return first_stage(load_recipe(tiny_recipe, named), tmp_path)[1]

    base = directory()
    assert base.parent == tmp_path / "shared"
    own = {"lr": 0.1, "steps": 4}
    assert directory(method__name="ewc", method__gate=None, method__rank=4) == base
    assert directory(curriculum=["sight", "tilt", "sound"]) == base
    assert directory(evaluation__whole_at_end=False) == base
    assert directory(modalities__sound__training=own) == base
    assert directory(modalities__tilt__cue="lean:") == base
    assert directory(training__up_lr=0.3, training__gate_lr=0.1) == base  # it has no adapters
    assert directory(training__llm_lr_share=0.1) == base
    for changes in (
        {"seed": 1},
        {"method__queries": 3},
        {"method__standardise": False},
        {"training__lr": 0.1},
        {"evaluation__subset": 3},
        {"limit": 5},
        {"modalities__sight__cue": "look:"},
    ):
        assert directory(**changes) != base, changes
    # What all stages have in common may be said of the first stage itself.
    steps = load_recipe(tiny_recipe).training.steps
    first = {"connector": True, "steps": steps}
    assert directory(modalities__sight__training=first, training__steps=9) == base


def test_a_first_stage_that_trains_no_connector_is_not_shared(tiny_recipe, tmp_path):
    field = "modalities.sight.training.connector"
    assert first_stage(load_recipe(tiny_recipe, {field: False}), tmp_path) is None
    assert first_stage(load_recipe(tiny_recipe, {"curriculum": ["sight"]}), tmp_path) is None


# The grids of the repository


@pytest.fixture(scope="module")
def shipped():
    return {file.stem: load_grid(file) for file in RECIPES.glob("*grid*.yaml")}


def test_the_shipped_grid_has_every_method_and_shares_the_first_stage(shipped, tmp_path):
    grid = shipped["mcl_grid"]
    assert {cell.recipe.method.name for cell in grid.cells} == set(METHODS_OF_THE_PACKAGE)
    assert len(grid.cells) == 14 * 3 + 3 * 2 * 3
    assert len({cell.name for cell in grid.cells}) == len(grid.cells)
    assert len({recipe_hash(cell.recipe) for cell in grid.cells}) == len(grid.cells)
    assert len({first_stage(cell.recipe, tmp_path)[1] for cell in grid.cells}) == 3
    whole = load_recipe(RECIPES / "mcl_mini.yaml")
    for cell in grid.cells:
        for name in cell.recipe.curriculum:
            share = 1.0 if name == whole.curriculum[0] else 0.4
            assert cell.recipe.training_of(name).steps == share * whole.training_of(name).steps


def test_every_ablation_is_in_a_shipped_grid(shipped):
    cells = {recipe_hash(c.recipe) for c in shipped["mcl_grid_ablations"].cells}
    assert len(cells) == len(shipped["mcl_grid_ablations"].cells)
    grids = [grid for name, grid in shipped.items() if name.startswith("mcl_grid")]
    orders = {cell.recipe.curriculum for grid in grids for cell in grid.cells}
    methods = {m for grid in grids for m in grid.declared.methods}
    for file in (RECIPES / "ablations").glob("*.yaml"):
        is_reference = file.stem in ("in_adapter_zero", "sites_released")
        assert is_reference or file.stem in methods or load_recipe(file).curriculum in orders, file


def test_the_shipped_grid_at_full_length_is_the_recipe_itself(shipped):
    cells = shipped["mcl_grid_full"].cells
    assert len(cells) == 15
    whole = load_recipe(RECIPES / "mcl_mini.yaml")
    for cell in cells:
        for name in whole.curriculum:
            assert cell.recipe.training_of(name).steps == whole.training_of(name).steps
        assert cell.recipe.evaluation.subset is None


def test_the_document_has_a_place_for_every_shipped_grid_of_mcl_mini(shipped):
    text = (RECIPES.parent / "docs/mcl.md").read_text(encoding="utf-8")
    of_mcl = [grid for name, grid in shipped.items() if name.startswith("mcl_")]
    assert len(of_mcl) > 2
    for grid in of_mcl:
        begin, end = marks(grid.declared.name)
        assert text.index(begin) < text.index(end)


def test_the_orders_of_the_shipped_grid_are_a_balanced_latin_square(shipped):
    orders = shipped["mcl_grid"].about().orders.values()
    assert len({order[0] for order in orders}) == 1
    later = [order[1:] for order in orders]
    assert all(len(set(place)) == 4 for place in zip(*later, strict=True))
    assert len({pair for order in later for pair in pairwise(order)}) == 12
