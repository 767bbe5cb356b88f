"""Running a grid: it loses nothing and repeats nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pathweave.compare.cell import Scored, load_cell
from pathweave.compare.declaration import load_grid, recipe_hash
from pathweave.compare.sessions import Spent, current, sessions
from tests.compare.grids import METHODS, write_grid
from tests.whole_runs import command, events, hashes

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["pathweave-main-seed0", "adapters-main-seed0"]
NAMES += ["pathweave-main-seed1", "adapters-main-seed1"]


def cell_directory(out: Path, name: str) -> Path:
    method, order, seed = name.split("-")
    return out / "runs" / method / order / f"seed-{seed.removeprefix('seed')}"


@pytest.fixture(scope="module")
def grid_file(tiny_recipe):
    return write_grid(tiny_recipe)


@pytest.fixture(scope="module")
def finished_grid(grid_file, shared_home, tmp_path_factory):
    """A finished grid, to be read only."""
    out = tmp_path_factory.mktemp("grid") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert command("compare", grid_file, "--out", out, "--json") == 0
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
        loaded = load_cell(file)
        cell = loaded.result
        assert file.stat().st_size < 20_000
        assert (cell.seconds > 0, cell.shared_seconds > 0) == (True, True)
        assert cell.peak_memory_bytes > 50_000_000
        assert {"torch", "transformers", "pathweave"} <= cell.versions.keys()
        assert str(finished_grid) not in file.read_text()
        keys = {"after-sight|sight|qa", "after-sound|sight|qa", "after-sound|sound|qa"}
        keys |= {"whole|sight|qa", "whole|sound|qa"}
        assert cell.ids.keys() == keys
        scored = Scored("sound", "sound", "qa")
        score = cell.results.matrix.score(1, "sound", "qa")
        assert loaded.statistics[scored].mean() == pytest.approx(score)
        assert len(loaded.objects[scored.samples]) == 6


def load_grid_of(out: Path):
    """Return the cells of a finished grid by its runs' recipes."""
    from pathweave.compare.declaration import Cell
    from pathweave.runs.run_directory import RunDirectory

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
    assert command("compare", grid_file, "--out", finished_grid, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": NAMES, "failed": {}}
    changed = {file.name for file in before if file.stat().st_mtime_ns != before[file]}
    assert changed <= {".lock", "grid.json", "log.jsonl"}
    grids = [json.loads(line) for line in (finished_grid / "log.jsonl").read_text().splitlines()]
    assert grids[-1]["event"] == "grid"
    assert grids[-1]["done"] == 4


def test_results_alone_are_enough_to_skip(grid_file, finished_grid, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "results", out / "results")
    assert command("compare", grid_file, "--out", out, "--dry-run", "--json") == 0
    assert [row["is_done"] for row in json.loads(capsys.readouterr().out)] == [True] * 4


def test_a_dry_run_lists_the_cells_and_writes_nothing(grid_file, finished_grid, tmp_path, capsys):
    assert command("compare", grid_file, "--out", tmp_path / "new", "--dry-run") == 0
    assert not (tmp_path / "new").exists()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["order", "method", "seed", "0", "seed", "1"]
    to_do = ["to", "do", "to", "do"]
    assert lines[2:-1] == [["main", "pathweave", *to_do], ["main", "adapters", *to_do]]
    assert lines[-1] == ["0", "of", "4", "cells", "done"]
    out = tmp_path / "begun"
    shutil.copytree(finished_grid, out)
    (out / "results" / f"{NAMES[0]}.json").unlink()
    shutil.rmtree(cell_directory(out, NAMES[0]) / "paths" / "sound")
    assert command("compare", grid_file, "--out", out, "--dry-run", "--only", "pathweave") == 0
    *_, row, last = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert re.fullmatch(r" *main +pathweave +1 of 2 stages +done, [\d.]+ (s|min) *", row)
    assert last == "1 of 2 cells done"


def test_a_missing_manifest_is_told_before_anything_is_trained(grid_file, tmp_path, capsys):
    missing = {"modalities.sound.train": {"qa": {"manifest": "no.jsonl"}}}
    other = grid_file.with_name("without.yaml")
    other.write_text(json.dumps(json.loads(grid_file.read_text()) | {"set": missing}))
    for words in (("--dry-run",), ()):
        assert command("compare", other, "--out", tmp_path / "out", *words) == 2
        assert "no.jsonl must be a manifest, got No such file" in capsys.readouterr().err
    assert not (tmp_path / "out" / "shared").exists()


def test_a_log_with_half_a_line_is_read(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"event": "session", "seconds": 2.0, "peak_memory_bytes": 7}, {"event": "session"}]
    lines.append({"event": "shared", "seconds": 5.0, "peak_memory_bytes": 99})
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "ses')
    assert sessions(log) == Spent(2.0, 5.0, 7)


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
    assert command("compare", grid_file, "--out", out) == 130
    watcher.join()
    assert f"stopped in {NAMES[1]}; run the same command again" in capsys.readouterr().err
    assert not (out / "results" / f"{NAMES[1]}.json").exists()
    assert (run / "checkpoint" / "state.json").exists()
    assert command("compare", grid_file, "--out", out, "--only", "adapters", "--json") == 0
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
    assert command("compare", grid_file, *words) == 130
    watcher.join()
    [stopped] = [line for line in capsys.readouterr().err.splitlines() if "stopped in" in line]
    assert NAMES[0] in stopped
    assert command("compare", grid_file, *words, "--json") == 0
    assert sorted(json.loads(capsys.readouterr().out)["done"]) == sorted(NAMES)
    assert results(out) == results(finished_grid)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    told = [(event["event"], event.get("cell")) for event in log]
    assert told[1:3] == [("cell", NAMES[0]), ("cell", NAMES[1])]
    assert told[-1][0] == "done"


def test_a_first_stage_is_trained_beside_another(grid_file, finished_grid, home, tmp_path):
    """What waits for a stage that is in training makes place for what does not."""
    out = tmp_path / "out"
    assert command("compare", grid_file, "--out", out, "--jobs", "2", "--json") == 0
    assert results(out) == results(finished_grid)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    told = [event["event"] for event in log]
    assert told[:3] == ["grid", "first_stage", "first_stage"]
    assert told.count("first_stage") == 2


def test_a_failed_cell_is_reported_and_the_others_go_on(
    tiny_recipe, finished_grid, home, tmp_path, capsys
):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    methods = {**METHODS, "broken": {"base": "nowhere/at/all"}}
    grid = write_grid(here / tiny_recipe.name, methods=methods, seeds=[0])
    out = tmp_path / "out"
    shutil.copytree(finished_grid, out)
    assert command("compare", grid, "--out", out) == 1
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
    assert command("compare", grid_file, "--out", out, "--json") == 1
    killer.join()
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert list(failed) == NAMES[:1]
    assert "ended by SIGKILL; most often memory has run out; see" in failed[NAMES[0]]


@pytest.mark.slow
def test_a_cell_outlives_its_grid_only_to_be_saved(grid_file, finished_grid, home, tmp_path):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, NAMES[1])
    words = [sys.executable, "-m", "pathweave.cli", "compare", str(grid_file), "--out", str(out)]
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
    assert command("compare", grid_file, "--out", out, "--json") == 0
    assert results(out) == results(finished_grid)


# What is refused


def test_results_of_another_recipe_are_refused(tiny_recipe, finished_grid, tmp_path, capsys):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    grid = write_grid(here / tiny_recipe.name, set={"training.lr": 0.5})
    for words in ((), ("--dry-run",)):
        assert command("compare", grid, "--out", finished_grid, *words) == 2
        error = capsys.readouterr().err
        assert f"{NAMES[0]}.json must be of the grid's recipe (" in error
        assert "to run the cell anew" in error


def test_a_damaged_result_is_refused(grid_file, finished_grid, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "results", out / "results")
    (out / "results" / f"{NAMES[0]}.json").write_text("{")
    assert command("compare", grid_file, "--out", out) == 2
    assert f"{NAMES[0]}.json must hold the result of a cell, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "compare must be given GRID and --out DIR, or --report DIR, got neither"),
        (("grid.yaml",), "compare must be given GRID and --out DIR"),
        (("grid.yaml", "--report", "x"), "--report must be given alone or with --out, got a grid"),
        (("--report", "x", "--dry-run"), "--report must be given alone"),
        (("--report", "x", "--jobs", "2"), "--report must be given alone"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message, capsys):
    assert command("compare", *words) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_method_is_refused(grid_file, tmp_path, capsys):
    assert command("compare", grid_file, "--out", tmp_path, "--only", "pathweav") == 2
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
