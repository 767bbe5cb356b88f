"""Grids: what they declare, and that running one loses nothing and repeats nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pathweave.errors import ManifestError, RecipeError
from pathweave.grid.cell import load_cell, load_samples
from pathweave.grid.declaration import load_grid, recipe_hash
from pathweave.grid.report import marks
from pathweave.grid.sessions import current
from pathweave.grid.shared import first_stage
from pathweave.methods import METHODS as METHODS_OF_THE_PACKAGE
from pathweave.recipe_files import load_recipe
from tests.grid.grids import METHODS, write_grid
from tests.runs import command, events, hashes, write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["pathweave-main-seed0", "adapters-main-seed0"]
NAMES += ["pathweave-main-seed1", "adapters-main-seed1"]


def cell_directory(out: Path, name: str) -> Path:
    method, order, seed = name.split("-")
    return out / "runs" / method / order / f"seed-{seed.removeprefix('seed')}"


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("sensors"), "sight", "sound", "tilt")


@pytest.fixture(scope="module")
def grid_file(tiny_recipe):
    return write_grid(tiny_recipe)


@pytest.fixture(scope="module")
def finished_grid(grid_file, shared_home, tmp_path_factory):
    """A finished grid, to be read only."""
    out = tmp_path_factory.mktemp("grid") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert command("mcl", grid_file, "--out", out, "--json") == 0
    return out


def results(out: Path) -> dict[str, dict]:
    """Return all results but what may differ between two runs."""
    found = {}
    for file in sorted((out / "results").glob("*-*.json")):
        tree = json.loads(file.read_text())
        for stage in tree["results"]["stages"]:
            del stage["seconds"], stage["num_bytes"]
        for field in ("seconds", "shared_seconds", "peak_memory_bytes"):
            del tree[field]
        del tree["results"]["environment"]
        found[file.stem] = tree
    return found


# Declaration


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
    assert grid.about()["num_cells"] == 6


def test_a_method_may_have_a_recipe_of_its_own(tiny_recipe, tmp_path):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    other = {"extends": "../recipe.yaml", "training": {"lr": 0.25}, "method": {"name": "ewc"}}
    (here / "methods").mkdir()
    (here / "methods/ewc.yaml").write_text(json.dumps(other))
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
        file.write_text(text)
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
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    assert recipe_hash(moved) != recipe_hash(here)
    assert recipe_hash(moved.cut(2)) == recipe_hash(here.cut(2))
    manifest.unlink()
    with pytest.raises(ManifestError, match=r"tilt-train.jsonl must be a manifest, got No such"):
        recipe_hash(moved)


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
        return first_stage(load_recipe(tiny_recipe, named), tmp_path).directory

    base = directory()
    assert base.parent == tmp_path / "shared"
    own = {"lr": 0.1, "steps": 4}
    assert directory(method__name="ewc", method__gate=None, method__rank=4) == base
    assert directory(curriculum=["sight", "tilt", "sound"]) == base
    assert directory(evaluation__whole_at_end=False) == base
    assert directory(modalities__sound__training=own) == base
    assert directory(modalities__tilt__cue="lean:") == base
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


# Running


def test_a_cell_is_an_ordinary_run(grid_file, finished_grid, home, tmp_path):
    """The shared stage makes no difference: the same recipe run alone gives the same tensors."""
    cell = load_grid(grid_file).cells[3]
    assert cell.name == NAMES[3]
    words = ("--set", "method.name=adapters", "--set", "seed=1")
    words += ("--set", "curriculum=[sight, sound]", "--json")
    recipe = grid_file.parent / "recipe.yaml"
    assert command("evolve", recipe, "--out", tmp_path / "alone", *words) == 0
    run = cell.directory(finished_grid)
    assert hashes(run) == hashes(tmp_path / "alone")
    scores = (run / "scores.json").read_text()
    assert json.loads(scores) == json.loads((tmp_path / "alone/scores.json").read_text())
    assert command("verify", run) == 0


def test_every_cell_has_a_result(finished_grid):
    found = results(finished_grid)
    assert sorted(found) == sorted(NAMES)
    assert {tree["recipe_hash"] for tree in found.values()} == {
        recipe_hash(cell.recipe) for cell in load_grid_of(finished_grid)
    }
    for name in NAMES:
        file = finished_grid / "results" / f"{name}.json"
        cell = load_cell(file)
        assert file.stat().st_size < 20_000
        assert (cell.seconds > 0, cell.shared_seconds > 0) == (True, True)
        assert cell.peak_memory_bytes > 50_000_000
        assert {"torch", "transformers", "pathweave"} <= cell.versions.keys()
        assert str(finished_grid) not in file.read_text()
        keys = {"after-sight|sight|qa", "after-sound|sight|qa", "after-sound|sound|qa"}
        keys |= {"whole|sight|qa", "whole|sound|qa"}
        assert cell.ids.keys() == keys
        tensors = load_samples(cell, file)
        score = cell.results.matrix.score(1, "sound", "qa")
        assert tensors["after-sound|sound|qa"].mean().item() == pytest.approx(score)
        assert len(tensors["objects|stages|sound|qa"]) == 6


def load_grid_of(out: Path):
    """Return the cells of a finished grid by its runs' recipes."""
    from pathweave.grid.declaration import Cell
    from pathweave.run_files import RunDirectory

    runs = [cell_directory(out, name) for name in NAMES]
    return [Cell("", "", 0, RunDirectory(run).recipe()) for run in runs]


def test_the_first_stage_is_trained_once_a_seed(finished_grid):
    trained = [
        e["stage"] for log in finished_grid.rglob("log.jsonl") for e in events(log.parent, "stage")
    ]
    assert sorted(trained) == ["sight"] * 2 + ["sound"] * 4
    shared = sorted((finished_grid / "shared").iterdir())
    assert [name.name.rpartition("-")[0] for name in shared] == ["sight-seed0", "sight-seed1"]
    for seed, stage in enumerate(shared):
        file = stage / "base/connector.safetensors"
        cells = [name for name in NAMES if name.endswith(f"seed{seed}")]
        copies = [
            cell_directory(finished_grid, name) / "base/connector.safetensors" for name in cells
        ]
        assert all(copy.samefile(file) for copy in copies)
        assert [e["directory"] for e in events(copies[0].parents[1], "shared")] == [stage.name]


def test_running_again_skips_what_is_done(grid_file, finished_grid, home, capsys):
    files = [file for file in finished_grid.rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert command("mcl", grid_file, "--out", finished_grid, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": NAMES, "failed": {}}
    changed = {file.name for file in before if file.stat().st_mtime_ns != before[file]}
    assert changed <= {".lock", "grid.json", "log.jsonl"}
    grids = [json.loads(line) for line in (finished_grid / "log.jsonl").read_text().splitlines()]
    assert grids[-1]["event"] == "grid"
    assert grids[-1]["done"] == 4


def test_results_alone_are_enough_to_skip(grid_file, finished_grid, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "results", out / "results")
    assert command("mcl", grid_file, "--out", out, "--dry-run", "--json") == 0
    assert [row["is_done"] for row in json.loads(capsys.readouterr().out)] == [True] * 4


def test_a_dry_run_lists_the_cells_and_writes_nothing(grid_file, finished_grid, tmp_path, capsys):
    assert command("mcl", grid_file, "--out", tmp_path / "new", "--dry-run") == 0
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().out.splitlines() == [
        *(f"{name}: to do" for name in NAMES),
        "0 of 4 cells done",
    ]
    out = tmp_path / "begun"
    shutil.copytree(finished_grid, out)
    (out / "results" / f"{NAMES[0]}.json").unlink()
    shutil.rmtree(cell_directory(out, NAMES[0]) / "paths" / "sound")
    assert command("mcl", grid_file, "--out", out, "--dry-run", "--only", "pathweave") == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == f"{NAMES[0]}: 1 of 2 stages"
    assert second.startswith(f"{NAMES[2]}: done (")
    assert last == "1 of 2 cells done"


def begin_again(finished: Path, out: Path, name: str) -> Path:
    """Copy a finished grid without one of its cells, and return where that is to be."""
    shutil.copytree(finished, out)
    (out / "results" / f"{name}.json").unlink()
    shutil.rmtree(cell_directory(out, name))
    return cell_directory(out, name)


def when_training(run: Path, do) -> threading.Thread:
    """Do something to the process of a run, which is held meanwhile, when it has done a step."""

    def watch() -> None:
        while not any(e["event"] == "step" for e in events(run)):
            time.sleep(0.001)
        process = int((run / ".lock").read_text())
        os.kill(process, signal.SIGSTOP)
        do(process)
        os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_stopped_grid_goes_on_to_equal_results(grid_file, finished_grid, home, tmp_path, capsys):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, NAMES[1])

    def interrupt(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)  # until the grid has passed it on

    watcher = when_training(run, interrupt)
    assert command("mcl", grid_file, "--out", out) == 130
    watcher.join()
    assert f"stopped in {NAMES[1]}; run the same command again" in capsys.readouterr().err
    assert not (out / "results" / f"{NAMES[1]}.json").exists()
    assert (run / "checkpoint" / "state.json").exists()
    assert command("mcl", grid_file, "--out", out, "--only", "adapters", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == [NAMES[3], NAMES[1]]
    assert results(out) == results(finished_grid)
    assert hashes(run) == hashes(cell_directory(finished_grid, NAMES[1]))
    assert [e["step"] for e in events(run, "step")] == [1, 2, 3, 4]
    assert len(events(run, "session")) == 2


def test_cells_side_by_side_are_stopped_together_and_give_equal_results(
    grid_file, finished_grid, home, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "shared", out / "shared")

    def interrupt(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)  # until the grid has passed it on

    watcher = when_training(cell_directory(out, NAMES[0]), interrupt)
    words = ("--out", out, "--jobs", "2")
    assert command("mcl", grid_file, *words) == 130
    watcher.join()
    [stopped] = [line for line in capsys.readouterr().err.splitlines() if "stopped in" in line]
    assert NAMES[0] in stopped
    assert command("mcl", grid_file, *words, "--json") == 0
    assert sorted(json.loads(capsys.readouterr().out)["done"]) == sorted(NAMES)
    assert results(out) == results(finished_grid)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    told = [(event["event"], event.get("cell")) for event in log]
    assert told[1:3] == [("cell", NAMES[0]), ("cell", NAMES[1])]
    assert told[-1][0] == "done"


def test_a_first_stage_is_trained_beside_another(grid_file, finished_grid, home, tmp_path):
    """What waits for a stage that is in training makes place for what does not."""
    out = tmp_path / "out"
    assert command("mcl", grid_file, "--out", out, "--jobs", "2", "--json") == 0
    assert results(out) == results(finished_grid)
    stages = [events(stage, "stage")[0]["time"] for stage in sorted((out / "shared").iterdir())]
    ended = [events(stage, "session")[0]["time"] for stage in sorted((out / "shared").iterdir())]
    assert len(stages) == 2
    assert max(stages) < min(ended)


def test_a_failed_cell_is_reported_and_the_others_go_on(
    tiny_recipe, finished_grid, home, tmp_path, capsys
):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    methods = {**METHODS, "broken": {"base": "nowhere/at/all"}}
    grid = write_grid(here / tiny_recipe.name, methods=methods, seeds=[0])
    out = tmp_path / "out"
    shutil.copytree(finished_grid, out)
    assert command("mcl", grid, "--out", out) == 1
    printed = capsys.readouterr()
    assert "2 of 3 cells done, 1 failed" in printed.out
    assert "failed broken-main-seed0: base must be one of" in " ".join(printed.err.split())
    [failed] = events(out, "failed")
    assert failed["cell"] == "broken-main-seed0"
    assert "nowhere/at/all" in failed["error"]
    assert "output.txt)" in failed["error"]


def test_a_killed_cell_says_how_it_ended(grid_file, finished_grid, home, tmp_path, capsys):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, NAMES[0])
    killer = when_training(run, lambda process: os.kill(process, signal.SIGKILL))
    assert command("mcl", grid_file, "--out", out, "--json") == 1
    killer.join()
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert list(failed) == NAMES[:1]
    assert "ended by SIGKILL; most often memory has run out; see" in failed[NAMES[0]]


# What is refused


def test_results_of_another_recipe_are_refused(tiny_recipe, finished_grid, tmp_path, capsys):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    grid = write_grid(here / tiny_recipe.name, set={"training.lr": 0.5})
    for words in ((), ("--dry-run",)):
        assert command("mcl", grid, "--out", finished_grid, *words) == 2
        error = capsys.readouterr().err
        assert f"{NAMES[0]}.json must be of the grid's recipe (" in error
        assert "to run the cell anew" in error


def test_a_damaged_result_is_refused(grid_file, finished_grid, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "results", out / "results")
    (out / "results" / f"{NAMES[0]}.json").write_text("{")
    assert command("mcl", grid_file, "--out", out) == 2
    assert f"{NAMES[0]}.json must hold the result of a cell, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "mcl must be given GRID and --out DIR, or --report DIR, got neither"),
        (("grid.yaml",), "mcl must be given GRID and --out DIR"),
        (("grid.yaml", "--report", "x"), "--report must be given alone or with --out, got a grid"),
        (("--report", "x", "--dry-run"), "--report must be given alone"),
        (("--report", "x", "--jobs", "2"), "--report must be given alone"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message, capsys):
    assert command("mcl", *words) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_method_is_refused(grid_file, tmp_path, capsys):
    assert command("mcl", grid_file, "--out", tmp_path, "--only", "pathweav") == 2
    assert "--only must be one of ['adapters', 'pathweave'], got 'pathweav'" in (
        capsys.readouterr().err
    )


def test_what_a_cell_is_doing_is_read_from_its_log(tmp_path):
    log = tmp_path / "log.jsonl"
    assert current(log, {}) == "starting"
    log.write_text('{"event": "stage", "stage": "sound"}\n')
    assert current(log, {}) == "stage sound"
    step = {"event": "step", "stage": "sound", "step": 3, "loss": 1.234}
    log.write_text("x" * 5000 + "\n" + json.dumps(step) + '\n{"event": "st')
    assert current(log, {"sound": 9}) == "train sound 3/9, loss 1.23"
    score = {"event": "score", "after": "sound", "modality": "sight", "dataset": "qa"}
    log.write_text(json.dumps(score) + "\n")
    assert current(log, {}) == "score after sound: sight/qa"


# The grid of the repository


def test_the_shipped_grid_has_every_method_and_shares_the_first_stage(tmp_path):
    grid = load_grid(RECIPES / "mcl_grid.yaml")
    assert {cell.recipe.method.name for cell in grid.cells} == set(METHODS_OF_THE_PACKAGE)
    assert len(grid.cells) == 14 * 3 + 3 * 2 * 3
    assert len({cell.name for cell in grid.cells}) == len(grid.cells)
    assert len({recipe_hash(cell.recipe) for cell in grid.cells}) == len(grid.cells)
    assert len({first_stage(cell.recipe, tmp_path).directory for cell in grid.cells}) == 3
    whole = load_recipe(RECIPES / "mcl_mini.yaml")
    for cell in grid.cells:
        for name in cell.recipe.curriculum:
            share = 1.0 if name == whole.curriculum[0] else 0.4
            assert cell.recipe.training_of(name).steps == share * whole.training_of(name).steps


def test_every_ablation_is_in_a_shipped_grid():
    grids = {file.stem: load_grid(file) for file in RECIPES.glob("mcl_grid*.yaml")}
    cells = {recipe_hash(c.recipe) for c in grids["mcl_grid_ablations"].cells}
    assert len(cells) == len(grids["mcl_grid_ablations"].cells)
    orders = {cell.recipe.curriculum for grid in grids.values() for cell in grid.cells}
    methods = {m for grid in grids.values() for m in grid.declared.methods}
    for file in (RECIPES / "ablations").glob("*.yaml"):
        is_reference = file.stem in ("in_adapter_zero", "sites_released")
        assert is_reference or file.stem in methods or load_recipe(file).curriculum in orders, file


def test_the_shipped_grid_at_full_length_is_the_recipe_itself():
    cells = load_grid(RECIPES / "mcl_grid_full.yaml").cells
    assert len(cells) == 15
    whole = load_recipe(RECIPES / "mcl_mini.yaml")
    for cell in cells:
        for name in whole.curriculum:
            assert cell.recipe.training_of(name).steps == whole.training_of(name).steps
        assert cell.recipe.evaluation.subset is None


def test_the_document_has_a_place_for_every_shipped_grid():
    text = (RECIPES.parent / "docs/mcl.md").read_text()
    for file in RECIPES.glob("*grid*.yaml"):
        begin, end = marks(load_grid(file).declared.name)
        assert text.index(begin) < text.index(end)


def test_the_orders_of_the_shipped_grid_are_a_balanced_latin_square():
    orders = load_grid(RECIPES / "mcl_grid.yaml").about()["orders"].values()
    assert len({order[0] for order in orders}) == 1
    later = [order[1:] for order in orders]
    assert all(len(set(place)) == 4 for place in zip(*later, strict=True))
    assert len({pair for order in later for pair in pairwise(order)}) == 12


@pytest.mark.slow
def test_a_cell_outlives_its_grid_only_to_be_saved(grid_file, finished_grid, home, tmp_path):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, NAMES[1])
    words = [sys.executable, "-m", "pathweave.cli", "mcl", str(grid_file), "--out", str(out)]
    grid = subprocess.Popen(words, cwd=RECIPES.parent, env=os.environ)

    def end_grid(_: int) -> None:
        grid.kill()
        grid.wait()

    watcher = when_training(run, end_grid)
    watcher.join()
    deadline = time.monotonic() + 30
    while not events(run, "session") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (run / "checkpoint" / "state.json").exists()
    assert command("mcl", grid_file, "--out", out, "--json") == 0
    assert results(out) == results(finished_grid)
