"""Runs of every method: what is on disk, what is proved, what stopping loses."""

import os
import shutil
import signal

import pytest
import torch

from pathweave.errors import DiskError, RecipeError, RunError
from pathweave.evaluate.verify import verify_run
from pathweave.methods import METHODS
from pathweave.runs.loading import load_run
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.train import finished_stage
from pathweave.train.log import RunLog
from pathweave.train.stop import Interrupted
from tests.whole_runs import command, events

SHORT_NAMES = ["sight", "sound"]
SHORT = {"training__steps": 2, "curriculum": SHORT_NAMES}
UNSCORED = {f"modalities__{name}__test": {} for name in ("sight", "sound", "tilt")}
OPTIONS = {
    "l2": {"method__l2__inner_epoch": 2},
    "ewc": {"method__ewc__samples": 2},
    "replay": {"method__replay__samples": 4},
    "mera": {"method__mera__samples": 2, "method__mera__steps": 3},
}
NOT_SHARED = [name for name in METHODS if not METHODS[name].shares]
PATH_FILES = {"path.json", "path.safetensors", "proof.safetensors"}


def state(run: RunDirectory) -> dict:
    """Return every tensor of the connector and of the paths of a run, as it is loaded."""
    model, _ = load_run(run.root)
    paths = {f"{p.spec.name}.{n}": t for p in model.paths for n, t in p.state_dict().items()}
    return {**model.base.connector_state(), **paths}


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class StoppingLog(RunLog):
    """A log during which somebody presses Ctrl-C: after the given step of the given lesson."""

    def __init__(self, log: RunLog, lesson: str, step: int) -> None:
        super().__init__(log._path)
        self.at = lesson, step

    def event(self, name: str, **values) -> None:
        super().event(name, **values)
        if name == "step" and (values["stage"], values["step"]) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_proves_truthfully_what_has_stayed_as_it_was(run, method):
    done = run(method, **SHORT, **OPTIONS.get(method, {}))
    model, _ = load_run(done.root)
    verdicts = {v.path: v for v in verify_run(model, done, model.paths.names)}
    # What is loaded is what the newest stage had made: its connector, and its path.
    assert verdicts["sound"].identical
    assert verdicts["sight"].identical == (method in NOT_SHARED)
    assert verdicts["sight"].holds == (method in NOT_SHARED)
    logged = {v["path"]: v["identical"] for v in events(done.root, "verified")}
    assert logged == {"base": True, "sight": method in NOT_SHARED, "sound": True}
    files = {str(f.relative_to(done.root)) for f in done.root.rglob("*") if f.is_file()}
    expected = {f"paths/{name}/{file}" for name in ("sight", "sound") for file in PATH_FILES}
    expected |= {"base/base.json", "base/connector.safetensors", "recipe.json", "scores.json"}
    expected |= {"base_proof/proof.json", "base_proof/logits.safetensors"}
    if method not in NOT_SHARED:
        expected |= {"connectors/sound/connector.json", "connectors/sound/connector.safetensors"}
    if method in ("ewc", "lora"):
        expected.add("connectors/sound/carried.safetensors")
    assert {f for f in files if not f.startswith(("predictions", ".lock"))} == expected | {
        *("log.jsonl", "results.json"),
    }
    about = describe_path(done.path("sound"))
    assert len(about["proof"]["texts"]) == 4  # of its 24 training samples
    assert about.get("method", "pathweave") == method
    assert ("connector_before" in about) == (method not in NOT_SHARED)
    assert "method" not in describe_path(done.path("sight"))


@pytest.mark.parametrize(
    ("method", "lesson"),
    [
        *(("l2", "sound"), ("lwf", "sound"), ("mera", "sound"), ("mera", "sound/realign")),
        # What is carried from stage to stage, and what is learnt at once.
        *(("ewc", "tilt"), ("lora", "tilt"), ("joint", "sound")),
    ],
)
def test_stopping_and_resuming_changes_nothing(run, method, lesson):
    names = ["sight", "sound", "tilt"] if lesson == "tilt" or method == "joint" else SHORT_NAMES
    options = {**OPTIONS.get(method, {}), **UNSCORED, "training__steps": 3, "curriculum": names}
    whole = run(method, "whole", **options)
    stopped = run.curriculum(method, "parts", **options)
    stopped.log = StoppingLog(stopped.log, lesson, step=1)
    with pytest.raises(Interrupted, match=f"stopped in stage '{lesson}' after step"):
        stopped()
    parts = run(method, "parts", **options)
    assert_equal(state(parts), state(whole))
    assert not list(parts.root.glob("checkpoint*"))
    steps = [[e["loss"] for e in events(each.root, "step")] for each in (whole, parts)]
    assert steps[0] == steps[1]


def test_a_full_disk_after_the_connector_is_written_loses_nothing(run, monkeypatch):
    options = {"training__steps": 1, **UNSCORED}
    whole = run("sequential", "whole", **options)
    real = finished_stage.save_path

    def full(path, paths, directory, *rest):
        if directory.name == "tilt":
            raise DiskError("the disk is full")
        real(path, paths, directory, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(finished_stage, "save_path", full)
        with pytest.raises(DiskError, match="the disk is full"):
            run("sequential", "parts", **options)
    parts = RunDirectory(run.root / "parts")
    assert {d.name for d in parts.connectors.iterdir()} == {"sound", "tilt"}
    run("sequential", "parts", **options)
    assert_equal(state(parts), state(whole))
    assert {d.name for d in parts.connectors.iterdir()} == {"tilt"}


def test_a_later_stage_changes_what_earlier_paths_have_for_themselves(run):
    done = run("replay", **SHORT)
    [queries] = {n: t for n, t in state(done).items() if n == "sight.queries"}.values()
    before = state(RunDirectory(shutil.copytree(run.first, run.root / "first")))["sight.queries"]
    assert not torch.equal(queries, before)
    assert run.results.stages[1].trained > run.results.stages[0].trained


def test_joint_training_is_one_stage(run):
    done = run("joint", training__steps=2)
    assert [e["step"] for e in events(done.root, "step")] == [1, 2, 3, 4]
    matrix = run.results.matrix
    assert [matrix.has(stage, "sight", "qa") for stage in range(3)] == [True, False, True]
    assert all(matrix.has(2, name, "qa") for name in ("sight", "sound", "tilt"))
    assert [stage.trained > 0 for stage in run.results.stages] == [True, True, False]
    assert [stage.seconds > 0 for stage in run.results.stages] == [True, True, False]
    again = run("joint", training__steps=2)
    assert len(events(again.root, "stage")) == 1


def test_a_modality_cannot_be_added_to_those_learnt_at_once(run):
    run("joint", **SHORT)
    expected = r"must begin with all of them, got 'tilt' added to .*joint; choose another --out"
    with pytest.raises(RunError, match=expected):
        run("joint", training__steps=2)


def test_earlier_stages_are_not_scored_with_a_connector_that_has_changed(run):
    done = run("sequential", **SHORT)
    done.scores.unlink()
    expected = (
        r"scores.json must hold the scores after stage 'sight', as the stage 'sound' has changed "
        r"the connector since, got none; restore the file"
    )
    with pytest.raises(RunError, match=expected):
        run("sequential", **SHORT)
    other = run("eproj", **SHORT)
    other.scores.unlink()
    run("eproj", **SHORT)
    assert other.scores.exists()


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].replays])
def test_methods_that_replay_need_data_of_every_modality(run, method):
    expected = f"method {method} must have the training data of every modality, got none of 'sight'"
    with pytest.raises(RecipeError, match=expected):
        run(method, **SHORT, modalities__sight__train={})


def test_a_first_stage_that_makes_no_base_is_learnt_by_the_method(run):
    run.first = None
    fields = {"modalities__sight__training": {}, "training__steps": 2, "curriculum": ["sight"]}
    done = run("sequential", **fields)
    assert done.connector("sight").is_dir()
    assert not done.base.exists()
    model, _ = load_run(done.root)
    assert [v.identical for v in verify_run(model, done, ["sight"])] == [True]


@pytest.mark.parametrize("method", ["sequential", "independent"])
def test_every_command_reads_the_run(run, method, capsys, recipe_file):
    done = run(method, **SHORT).root
    shared = method == "sequential"
    assert command("verify", done) == int(shared)
    said = capsys.readouterr().out
    assert ("FAIL sight: differs by" in said) == shared
    assert "ok   sound: bit-identical" in said
    assert command("inspect", done) == 0
    assert command("evaluate", done, "--json") == 0
    assert '"set": "sound/qa"' in capsys.readouterr().out
    file = recipe_file.parent / "sound-test-0.npy"
    assert command("ask", done, "--sound", file, "--sight", file, "How is it?") == 0
