"""What differs between runs and paths, and that nothing does where nothing does."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pathweave.runs.run_directory import RunDirectory
from pathweave.share import diff
from pathweave.storage.atomic import sha256_file
from tests.share.packs import edit, members, seal, write
from tests.whole_runs import command


def fields(found, part):
    return {each["field"]: (each["a"], each["b"]) for each in found[part]}


def parts(found):
    """The parts in which there are differences."""
    assert found["equal"] is False
    return [part for part in ("settings", "data", "tensors", "scores") if found[part]]


@pytest.fixture
def other(finished_run, recipe_file, tmp_path):
    """A copy of the run, to be changed; its recipe lies elsewhere and has another name."""
    run = shutil.copytree(finished_run, tmp_path / "other")
    file = RunDirectory(run).recipe_file
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(told | {"name": "another"}), encoding="utf-8")
    return run


def test_equal_runs_are_equal(finished_run, other, capsys):
    assert command("diff", finished_run, other) == 0
    assert "equal in settings, data, tensors and scores" in capsys.readouterr().out
    assert command("diff", finished_run, other, "--json") == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True


def test_a_path_equals_its_pack_and_itself_elsewhere(finished_run, packs, colleague):
    assert diff(f"{finished_run}:tilt", str(packs / "tilt"))["equal"]
    assert command("add", colleague, packs / "tilt") == 0
    assert diff(f"{finished_run}:tilt", f"{colleague}:tilt")["equal"]
    assert diff(str(packs / "tilt"), str(packs / "tilt"))["equal"]


def test_settings_that_differ_are_named_with_both_values(finished_run, other, capsys):
    file = RunDirectory(other).recipe_file
    told = json.loads(file.read_text(encoding="utf-8"))
    told["training"]["lr"], told["method"]["rank"] = 0.01, 4
    told["modalities"]["tilt"]["training"] = {"steps": 9}
    file.write_text(json.dumps(told), encoding="utf-8")
    found = diff(str(finished_run), str(other))
    assert fields(found, "settings") == {
        "training.lr": (0.05, 0.01),
        "method.rank": (2, 4),
        "modalities.tilt.training.steps": (None, 9),
    }
    assert parts(found) == ["settings"]
    assert command("diff", finished_run, other) == 1
    shown = capsys.readouterr().out
    assert "training.lr" in shown
    assert "equal: data, tensors, scores" in shown
    of_path = fields(diff(f"{finished_run}:tilt", f"{other}:tilt"), "settings")
    assert of_path == {
        "training.lr": (0.05, 0.01), "training.steps": (4, 9), "method.rank": (2, 4)
    }  # fmt: skip


def test_scores_that_differ_are_named_with_both_values(finished_run, other):
    file = RunDirectory(other).results
    told = json.loads(file.read_text(encoding="utf-8"))
    last = told["scores"]["scores"][-1]
    before, last["score"] = last["score"], 12.5
    told["datasets"]["tilt"][0]["probe"] = 80.0
    file.write_text(json.dumps(told), encoding="utf-8")
    found = fields(diff(str(finished_run), str(other)), "scores")
    assert found.pop("T after tilt") == (before, 12.5)
    assert found == {"tilt qa after tilt": (before, 12.5), "tilt qa probe": (None, 80.0)}
    found = fields(diff(f"{finished_run}:tilt", f"{other}:tilt"), "scores")
    assert found["qa at the end"] == found["qa after its stage"] == found["T"] == (before, 12.5)


def test_tensors_that_differ_are_named(finished_run, other, packs, tmp_path):
    file = RunDirectory(other).path("tilt") / "path.safetensors"
    tensors = load_file(file)
    tensors["queries"] = tensors["queries"] + 1
    save_file(tensors, file)
    description = RunDirectory(other).path("tilt") / "path.json"
    told = json.loads(description.read_text(encoding="utf-8"))
    told["files"]["path.safetensors"] = sha256_file(file)
    description.write_text(json.dumps(told), encoding="utf-8")
    found = diff(str(finished_run), str(other))
    assert list(fields(found, "tensors")) == ["tilt"]
    assert parts(found) == ["tensors"]
    assert list(fields(diff(f"{finished_run}:tilt", f"{other}:tilt"), "tensors")) == ["path"]
    assert diff(f"{finished_run}:sound", f"{other}:sound")["equal"]


def test_data_that_differ_are_named(finished_run, packs, tmp_path):
    content = members(packs / "tilt")
    edit(
        content, "pack.json",
        lambda told: told["data"]["tilt.train.qa"].update(num_samples=7, sha256="0" * 64),
    )  # fmt: skip
    seal(content)
    found = diff(str(write(tmp_path / "pack", content)), f"{finished_run}:tilt")
    assert fields(found, "data")["train.qa.num_samples"] == (7, 24)
    assert fields(found, "data")["train.qa.sha256"][0] == "0" * 64
    assert parts(found) == ["data"]


def test_two_paths_of_a_run_differ(finished_run, packs):
    found = diff(str(packs / "tilt"), f"{finished_run}:sound")
    assert fields(found, "settings")["modality.cue"] == ("tilt:", "sound:")
    assert fields(found, "settings")["spec.predecessors"] == (["sound"], [])
    assert set(fields(found, "tensors")) == {"path", "predecessor sound"}
    assert set(fields(found, "data")) == {"train.qa.sha256", "test.qa.sha256"}


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("run", "run:tilt", "two runs or two paths must be compared, got a run and a path"),
        ("run", "nowhere", "must be the directory of a run"),
        ("run:tilts", "run:tilt", "must be one of ['sight', 'sound', 'tilt'], got 'tilts'"),
        ("run/recipe.json", "run:tilt", "must be a whole pack of a path"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, words, finished_run, capsys, monkeypatch):
    monkeypatch.chdir(finished_run.parent)
    assert command("diff", a, b) == 2
    assert words in capsys.readouterr().err
