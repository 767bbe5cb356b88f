"""Numbers of whole runs, read back from what each tracker has written."""

import json
import sqlite3
import sys
from contextlib import closing

import pytest

from tests.compare.grids import write_grid
from tests.whole_runs import SENSORS, command, events

STEPS = 4 * len(SENSORS)


def in_log(run):
    """Return the loss of every step of a run, and every score, as they are logged."""
    losses = [(e["stage"], place, e["loss"]) for place, e in enumerate(events(run, "step"), 1)]
    return losses, [(e["modality"], e["score"]) for e in events(run, "score")]


def tracked_run(recipe_file, tmp_path, name):
    out = tmp_path / "run"
    assert command("evolve", recipe_file, "--out", out, "--track", name, "--json") == 0
    return out


@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own code
def test_tensorboard_has_the_numbers_of_the_log(recipe_file, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tracked_run(recipe_file, tmp_path, "tensorboard")
    written = EventAccumulator(str(out / "tensorboard" / "pathweave"))
    written.Reload()
    losses, scores = in_log(out)
    assert len(losses) == STEPS
    for stage, place, loss in losses:
        found = {each.step: each.value for each in written.Scalars(f"{stage}/loss")}
        assert found[place] == pytest.approx(loss)
    for modality, score in scores:
        assert score in [pytest.approx(e.value) for e in written.Scalars(f"scores/{modality}/qa")]


@pytest.mark.filterwarnings("ignore")  # of Trackio's own code
def test_trackio_has_the_numbers_of_the_log_and_goes_on_with_a_run(
    recipe_file, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="the extra trackio is not installed")
    out = tracked_run(recipe_file, tmp_path, "trackio")
    assert capfd.readouterr().out.startswith("{")  # results alone
    assert trackio.context_vars.current_run.get() is None  # nothing more to say at exit
    losses, _ = in_log(out)
    assert [run.name for run in trackio.Api().runs("pathweave")] == [str(out)]
    with closing(sqlite3.connect(tmp_path / "trackio" / "pathweave.db")) as database:
        rows = database.execute("select step, metrics from metrics").fetchall()
    written = {(step, key): v for step, text in rows for key, v in json.loads(text).items()}
    for stage, place, loss in losses:
        assert written[place, f"{stage}/loss"] == pytest.approx(loss)
    tracked_run(recipe_file, tmp_path, "trackio")  # all is done: the same run, no other
    assert len(trackio.Api().runs("pathweave")) == 1
    assert len(events(out, "tracked")) == 2


@pytest.mark.filterwarnings("ignore")  # of wandb's own code
def test_wandb_writes_a_run_that_can_be_sent_later(recipe_file, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tracked_run(recipe_file, tmp_path, "wandb")
    [written] = (out / "wandb").glob("offline-run-*/*.wandb")
    data = written.read_bytes()
    assert all(f"{name}/loss".encode() in data for name in SENSORS)


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(
    recipe_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "trackio", None)
    out = tmp_path / "run"
    for words in (["evolve", recipe_file], ["compare", recipe_file.parent / "grid.yaml"]):
        write_grid(recipe_file)
        assert command(*words, "--out", out, "--track", "trackio") == 2
        told = capsys.readouterr().err
        assert told.startswith("error: trackio must be installed for this")
        assert "pip install 'pathweave[trackio]'" in told
    assert not out.exists()


@pytest.mark.parametrize("words", [["evolve"], ["extend", "base"]])
def test_a_tracker_that_is_not_known_is_refused(recipe_file, tmp_path, capsys, words):
    assert command(*words, recipe_file, "--out", tmp_path / "run", "--track", "tensorbord") == 2
    assert "got 'tensorbord'; did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_cell_of_a_grid_is_tracked(recipe_file, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    grid = write_grid(recipe_file, seeds=[0], methods={"pathweave": {}})
    out = tmp_path / "grid"
    assert command("compare", grid, "--out", out, "--track", "tensorboard", "--json") == 0
    written = {file.relative_to(out).parts[0] for file in out.rglob("events.out.tfevents*")}
    assert "runs" in written
