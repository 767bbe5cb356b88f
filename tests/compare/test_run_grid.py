"""Running a grid: it loses nothing and repeats nothing."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from pathweave.compare.cell import Scored, load_cell, record
from pathweave.compare.grid import load_grid, recipe_hash
from pathweave.compare.sessions import current, sessions
from pathweave.compare.shared import first_stage
from tests.compare.grids import write_grid
from tests.whole_runs import command, events, hashes

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS = {"training.steps": 30}  # time enough to be stopped before the last
OURS, ADAPTERS = NAMES = ["pathweave-main-seed0", "adapters-main-seed0"]


def cell_directory(out: Path, name: str) -> Path:
    method, order, seed = name.split("-")
    return out / "runs" / method / order / f"seed-{seed.removeprefix('seed')}"


def when_training(runs: list[Path], do) -> threading.Thread:
    """Do something to processes of runs, held meanwhile, when each has done a step."""

    def watch() -> None:
        held, deadline = {}, time.monotonic() + 300
        while len(held) < len(runs):
            for run in runs:
                if run not in held and any(e["event"] == "step" for e in events(run)):
                    held[run] = int((run / ".lock.pid").read_text(encoding="utf-8"))
                    os.kill(held[run], signal.SIGSTOP)
            time.sleep(0.001)
            assert time.monotonic() < deadline
        do(*held.values())
        for process in held.values():
            os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def interrupt(*_: int) -> None:
    """Press Ctrl-C, and wait until the grid has passed it on."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.6)


@dataclass
class Told:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @classmethod
    def by(cls, *words: object) -> "Told":
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = command("compare", *words)
        return cls(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def grid_file(tiny_recipe):
    return write_grid(tiny_recipe, seeds=[0], set=STEPS)


@pytest.fixture(scope="module")
def history(grid_file, shared_home, tmp_path_factory):
    """A grid that was killed, stopped and gone on with: its directory, and what each run said.

    Every cell is a process that takes seconds to start, so one grid goes through all of it.
    """
    tree = json.loads(grid_file.read_text(encoding="utf-8"))
    tree["methods"]["broken"] = {"base": "nowhere/at/all"}
    broken = grid_file.with_name("broken.yaml")
    broken.write_text(json.dumps(tree), encoding="utf-8")
    out = tmp_path_factory.mktemp("grid") / "out"
    _, stage = first_stage(load_grid(grid_file).cells[0].recipe, out)
    words = ("--out", out, "--jobs", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        watcher = when_training([stage], lambda process: os.kill(process, signal.SIGKILL))
        killed = Told.by(broken, *words, "--json")
        watcher.join(timeout=300)
        watcher = when_training([cell_directory(out, name) for name in NAMES], interrupt)
        stopped = Told.by(grid_file, *words)
        watcher.join(timeout=300)
        assert list((out / "results").iterdir()) == [out / "results" / "grid.json"]
        for name in NAMES:
            assert (cell_directory(out, name) / "checkpoint" / "state.json").exists()
        return out, killed, stopped, Told.by(broken, *words)


@pytest.fixture
def finished_grid(history):
    """A finished grid, to be read only."""
    return history[0]


def results(out: Path) -> dict[str, dict]:
    """Return all results but what may differ between two runs."""
    found = {}
    for file in sorted((out / "results").glob("*-*.json")):
        tree = json.loads(file.read_text(encoding="utf-8"))
        for field in ("seconds", "shared_seconds", "peak_memory_bytes"):
            del tree[field]
        lasting(tree["results"])
        found[file.stem] = tree
    return found


def lasting(results: dict) -> dict:
    """Take away from results what may differ between two runs."""
    for stage in results["stages"]:
        del stage["seconds"], stage["num_bytes"]
    del results["environment"]
    return results


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_an_ordinary_run(grid_file, finished_grid, home, tmp_path, name):
    """Neither the shared stage nor a stop makes a difference: the recipe alone gives the same."""
    words = ("--set", "curriculum=[sight, sound]", "--set", "training.steps=30", "--json")
    method = ("--set", f"method.name={name.split('-')[0]}")
    recipe, alone = grid_file.parent / "recipe.yaml", tmp_path / "alone"
    assert command("evolve", recipe, "--out", alone, *method, *words) == 0
    run = cell_directory(finished_grid, name)
    assert hashes(run) == hashes(alone)
    trees = [
        json.loads((each / "results.json").read_text(encoding="utf-8")) for each in (run, alone)
    ]
    assert lasting(trees[0]) == lasting(trees[1])
    trees = [
        json.loads((each / "scores.json").read_text(encoding="utf-8")) for each in (run, alone)
    ]
    assert trees[0] == trees[1]
    assert command("verify", run) == 0
    assert [e["step"] for e in events(run, "step")] == list(range(1, 31))
    assert len(events(run, "session")) == 2


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
    [results] = (finished_grid / "shared").rglob("results.json")
    stage = results.parent
    assert stage.name.startswith("sight-seed0-")
    assert {e["stage"] for e in events(stage, "stage")} == {"sight"}
    for run in (cell_directory(finished_grid, name) for name in NAMES):
        assert {e["stage"] for e in events(run, "stage")} == {"sound"}
        file = "base/connector.safetensors"
        assert (run / file).samefile(stage / file)
        assert [e["directory"] for e in events(run, "shared")] == [stage.name]


def test_a_killed_stage_and_a_failed_one_are_told_of_with_every_cell(history):
    out, killed, _, last = history
    assert (killed.code, last.code) == (1, 1)
    told = json.loads(killed.out)
    assert told["done"] == []
    assert set(told["failed"]) == {*NAMES, "broken-main-seed0"}
    for name in NAMES:
        assert "ended by SIGKILL; most often memory has run out; see" in told["failed"][name]
    assert "2 of 3 cells done, 1 failed" in last.out
    assert "failed broken-main-seed0: base must be one of" in " ".join(last.err.split())
    *_, failed = events(out, "failed")
    assert failed["cell"] == "broken-main-seed0"
    assert "nowhere/at/all" in failed["error"]
    assert "output.txt)" in failed["error"]


def test_cells_and_stages_run_side_by_side_and_are_stopped_together(history):
    """What waits for a stage makes place."""
    out, _, stopped, _ = history
    assert stopped.code == 130
    [line] = [line for line in stopped.err.splitlines() if "stopped in" in line]
    assert all(name in line for name in NAMES)
    assert line.endswith("; run the same command again to go on")
    told = [event["event"] for event in events(out)]
    assert told[:3] == ["grid", "first_stage", "first_stage"]
    assert told.count("stopped") == told.count("done") == 2
    assert [event["done"] for event in events(out, "grid")][:3] == [0, 0, 0]


def test_running_again_skips_what_is_done(grid_file, finished_grid, home, capsys):
    files = [file for file in finished_grid.rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert command("compare", grid_file, "--out", finished_grid, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"done": NAMES, "failed": {}}
    words = ("--only", "adapters", "--json")
    assert command("compare", grid_file, "--out", finished_grid, *words) == 0
    assert json.loads(capsys.readouterr().out)["done"] == [ADAPTERS]
    changed = {file.name for file in before if file.stat().st_mtime_ns != before[file]}
    assert changed <= {".lock", "grid.json", "log.jsonl"}
    grids = [
        json.loads(line)
        for line in (finished_grid / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(event["event"], event["done"]) for event in grids[-2:]] == [("grid", 2), ("grid", 1)]


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
    assert sessions(log) == {"seconds": 2.0, "shared_seconds": 5.0, "peak_memory_bytes": 7}


@pytest.mark.slow
def test_a_cell_outlives_its_grid_only_to_be_saved(grid_file, finished_grid, home, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished_grid, out)
    (out / "results" / f"{ADAPTERS}.json").unlink()
    run = cell_directory(out, ADAPTERS)
    shutil.rmtree(run)
    words = [sys.executable, "-m", "pathweave.cli", "compare", str(grid_file), "--out", str(out)]
    # Without nohup the kernel would end the cell: a held process whose parent dies gets SIGHUP.
    grid = subprocess.Popen(["nohup", *words], cwd=RECIPES.parent, env=os.environ)

    def end_grid(_: int) -> None:
        grid.kill()
        grid.wait()

    watcher = when_training([run], end_grid)
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
