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

from pathweave.compare.cell import Scored, load_cell, record
from pathweave.compare.grid import load_grid, recipe_hash
from pathweave.compare.sessions import Spent, current, sessions
from tests.compare.grids import METHODS, write_grid
from tests.whole_runs import command, events, hashes

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS = {"training.steps": 30}  # time enough to be stopped before the last
OURS, ADAPTERS = NAMES = ["pathweave-main-seed0", "adapters-main-seed0"]


def cell_directory(out: Path, name: str) -> Path:
    method, order, seed = name.split("-")
    return out / "runs" / method / order / f"seed-{seed.removeprefix('seed')}"


@pytest.fixture(scope="module")
def grid_file(tiny_recipe):
    return write_grid(tiny_recipe, seeds=[0], set=STEPS)


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
        tree = json.loads(file.read_text(encoding="utf-8"))
        for stage in tree["results"]["stages"]:
            del stage["seconds"], stage["num_bytes"]
        for field in ("seconds", "shared_seconds", "peak_memory_bytes"):
            del tree[field]
        del tree["results"]["environment"]
        found[file.stem] = tree
    return found


def test_a_cell_is_an_ordinary_run(grid_file, finished_grid, home, tmp_path):
    """The shared stage makes no difference: the same recipe run alone gives the same tensors."""
    cell = load_grid(grid_file).cells[1]
    assert cell.name == ADAPTERS
    words = ("--set", "method.name=adapters", "--set", "curriculum=[sight, sound]", "--json")
    words += ("--set", "training.steps=30")
    recipe = grid_file.parent / "recipe.yaml"
    assert command("evolve", recipe, "--out", tmp_path / "alone", *words) == 0
    run = cell.directory(finished_grid)
    assert hashes(run) == hashes(tmp_path / "alone")
    scores = (run / "scores.json").read_text(encoding="utf-8")
    assert json.loads(scores) == json.loads(
        (tmp_path / "alone/scores.json").read_text(encoding="utf-8")
    )
    assert command("verify", run) == 0


def test_every_cell_has_a_result(grid_file, finished_grid):
    found = results(finished_grid)
    assert sorted(found) == sorted(NAMES)
    for cell in load_grid(grid_file).cells:
        file = cell.result(finished_grid)
        assert found[cell.name]["recipe_hash"] == recipe_hash(cell.recipe)
        assert file.stat().st_size < 20_000
        assert str(finished_grid) not in file.read_text(encoding="utf-8")
        loaded = load_cell(file)
        result = loaded.result
        assert (result.seconds > 0, result.shared_seconds > 0) == (True, True)
        assert result.peak_memory_bytes > 50_000_000
        assert {"torch", "transformers", "pathweave"} <= result.versions.keys()
        keys = {"after-sight|sight|qa", "after-sound|sight|qa", "after-sound|sound|qa"}
        assert result.ids.keys() == keys | {"whole|sight|qa", "whole|sound|qa"}
        scored = Scored("sound", "sound", "qa")
        score = result.results.matrix.score(1, "sound", "qa")
        assert loaded.statistics[scored].mean() == pytest.approx(score)
        assert len(loaded.objects[scored.objects]) == 6


def test_the_result_of_a_run_without_statistics_is_the_same(grid_file, finished_grid, tmp_path):
    """Runs of earlier versions hold the answers alone."""
    out = tmp_path / "out"
    shutil.copytree(finished_grid, out)
    cell = load_grid(grid_file).cells[0]
    for file in (cell.directory(out) / "predictions").rglob("*.safetensors"):
        file.unlink()
    record(cell, out)
    assert results(out) == results(finished_grid)


def test_the_first_stage_is_trained_once(finished_grid):
    trained = [
        e["stage"] for log in finished_grid.rglob("log.jsonl") for e in events(log.parent, "stage")
    ]
    assert sorted(trained) == ["sight", "sound", "sound"]
    [stage] = (finished_grid / "shared").iterdir()
    assert stage.name.startswith("sight-seed0-")
    for run in (cell_directory(finished_grid, name) for name in NAMES):
        file = "base/connector.safetensors"
        assert (run / file).samefile(stage / file)
        assert [e["directory"] for e in events(run, "shared")] == [stage.name]


def test_running_again_skips_what_is_done(grid_file, finished_grid, home, capsys):
    files = [file for file in finished_grid.rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert command("compare", grid_file, "--out", finished_grid, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": NAMES, "failed": {}}
    changed = {file.name for file in before if file.stat().st_mtime_ns != before[file]}
    assert changed <= {".lock", "grid.json", "log.jsonl"}
    grids = [
        json.loads(line)
        for line in (finished_grid / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert grids[-1]["event"] == "grid"
    assert grids[-1]["done"] == 2


def test_results_alone_are_enough_to_skip(grid_file, finished_grid, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished_grid / "results", out / "results")
    assert command("compare", grid_file, "--out", out, "--dry-run", "--json") == 0
    assert [row["is_done"] for row in json.loads(capsys.readouterr().out)] == [True] * 2


def test_a_dry_run_lists_the_cells_and_writes_nothing(grid_file, finished_grid, tmp_path, capsys):
    assert command("compare", grid_file, "--out", tmp_path / "new", "--dry-run") == 0
    assert not (tmp_path / "new").exists()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    to_do = [["main, pathweave", "to do"], ["main, adapters", "to do"]]
    assert [cells(line) for line in lines[1:-1]] == [["order, method", "seed 0"], [], *to_do]
    assert lines[-1] == "0 of 2 cells done"
    out = tmp_path / "begun"
    shutil.copytree(finished_grid, out)
    (out / "results" / f"{OURS}.json").unlink()
    shutil.rmtree(cell_directory(out, OURS) / "paths" / "sound")
    assert command("compare", grid_file, "--out", out, "--dry-run") == 0
    *_, ours, adapters, _, last = capsys.readouterr().out.splitlines()
    assert cells(ours) == ["main, pathweave", "1 of 2 stages"]
    assert re.fullmatch(r"done, [\d.]+ (s|min)", cells(adapters)[1])
    assert last == "1 of 2 cells done"


def cells(line: str) -> list[str]:
    """The cells of a line of a table; none of the rule below the headings."""
    return [] if line.startswith("|-") else [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("width", [80, 100])
def test_many_seeds_are_listed_whole(tiny_recipe, tmp_path, monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    grid = write_grid(here / tiny_recipe.name, seeds=list(range(12)))
    assert command("compare", grid, "--out", tmp_path / "out", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    headings = [cell for line in lines if "order, method" in line for cell in cells(line)[1:]]
    assert headings == [f"seed {seed}" for seed in range(12)]


def test_a_missing_manifest_is_told_before_anything_is_trained(grid_file, tmp_path, capsys):
    missing = {"modalities.sound.train": {"qa": {"manifest": "no.jsonl"}}}
    other = grid_file.with_name("without.yaml")
    other.write_text(
        json.dumps(json.loads(grid_file.read_text(encoding="utf-8")) | {"set": missing}),
        encoding="utf-8",
    )
    for words in (("--dry-run",), ()):
        assert command("compare", other, "--out", tmp_path / "out", *words) == 2
        assert "no.jsonl must be a manifest, got No such file" in capsys.readouterr().err
    assert not (tmp_path / "out" / "shared").exists()


def test_a_log_with_half_a_line_is_read(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [{"event": "session", "seconds": 2.0, "peak_memory_bytes": 7}, {"event": "session"}]
    lines.append({"event": "shared", "seconds": 5.0, "peak_memory_bytes": 99})
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "ses', encoding="utf-8")
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
        process = int((run / ".lock.pid").read_text(encoding="utf-8"))
        os.kill(process, signal.SIGSTOP)
        do(process)
        os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def interrupt(_: int) -> None:
    """Press Ctrl-C, and wait until the grid has passed it on."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.6)


def test_a_stopped_grid_goes_on_to_equal_results(grid_file, finished_grid, home, tmp_path, capsys):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, ADAPTERS)
    watcher = when_training(run, interrupt)
    assert command("compare", grid_file, "--out", out) == 130
    watcher.join()
    assert f"stopped in {ADAPTERS}; run the same command again" in capsys.readouterr().err
    assert not (out / "results" / f"{ADAPTERS}.json").exists()
    assert (run / "checkpoint" / "state.json").exists()
    assert command("compare", grid_file, "--out", out, "--only", "adapters", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == [ADAPTERS]
    assert results(out) == results(finished_grid)
    assert hashes(run) == hashes(cell_directory(finished_grid, ADAPTERS))
    assert [e["step"] for e in events(run, "step")] == list(range(1, 31))
    assert len(events(run, "session")) == 2


def test_cells_side_by_side_are_stopped_together_and_give_equal_results(
    tiny_recipe, finished_grid, home, tmp_path, capsys
):
    """First stages are trained beside one another too; what waits for one makes place."""
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    grid, out = write_grid(here / tiny_recipe.name, set=STEPS), tmp_path / "out"
    words = ("--out", out, "--jobs", "2", "--only", "pathweave")
    watcher = when_training(cell_directory(out, OURS), interrupt)
    assert command("compare", grid, *words) == 130
    watcher.join()
    [stopped] = [line for line in capsys.readouterr().err.splitlines() if "stopped in" in line]
    assert OURS in stopped
    assert command("compare", grid, *words, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["done"]) == 2
    assert results(out)[OURS] == results(finished_grid)[OURS]
    told = [(event["event"], event.get("cell")) for event in events(out)]
    assert [name for name, _ in told[:3]] == ["grid", "first_stage", "first_stage"]
    assert [name for name, _ in told].count("first_stage") == 2
    assert told[-1][0] == "done"


def test_a_failed_cell_is_reported_and_the_others_go_on(
    tiny_recipe, finished_grid, home, tmp_path, capsys
):
    here = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "sensors"))
    methods = {**METHODS, "broken": {"base": "nowhere/at/all"}}
    grid = write_grid(here / tiny_recipe.name, methods=methods, seeds=[0], set=STEPS)
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
    run = begin_again(finished_grid, out, OURS)
    killer = when_training(run, lambda process: os.kill(process, signal.SIGKILL))
    assert command("compare", grid_file, "--out", out, "--json") == 1
    killer.join()
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert list(failed) == NAMES[:1]
    assert "ended by SIGKILL; most often memory has run out; see" in failed[NAMES[0]]


@pytest.mark.slow
def test_a_cell_outlives_its_grid_only_to_be_saved(grid_file, finished_grid, home, tmp_path):
    out = tmp_path / "out"
    run = begin_again(finished_grid, out, ADAPTERS)
    words = [sys.executable, "-m", "pathweave.cli", "compare", str(grid_file), "--out", str(out)]
    # Without nohup the kernel would end the cell: a held process whose parent dies gets SIGHUP.
    grid = subprocess.Popen(["nohup", *words], cwd=RECIPES.parent, env=os.environ)

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
    (out / "results" / f"{NAMES[0]}.json").write_text("{", encoding="utf-8")
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
    log.write_text('{"event": "stage", "stage": "sound"}\n', encoding="utf-8")
    assert current(log, {}) == "stage sound"
    step = {"event": "step", "stage": "sound", "step": 3, "loss": 1.234}
    log.write_text("x" * 5000 + "\n" + json.dumps(step) + '\n{"event": "st', encoding="utf-8")
    assert current(log, {"sound": 9}) == "train sound 3/9, loss 1.23"
    score = {"event": "score", "after": "sound", "modality": "sight", "dataset": "qa"}
    log.write_text(json.dumps(score) + "\n", encoding="utf-8")
    assert current(log, {}) == "score after sound: sight/qa"
