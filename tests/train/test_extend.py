"""A sense added to a finished run: learnt, paid for, and nothing else touched."""

import json
import shutil

import pytest

from pathweave.recipe.reading import load_recipe
from pathweave.runs.run_directory import RunDirectory
from tests.whole_runs import SENSORS, command, events, hashes, write_sense

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def sense(tmp_path_factory, recipe_file):
    """The recipe of a fourth sensor alone."""
    return write_sense(tmp_path_factory.mktemp("heat"), recipe_file)


def changed(sense, directory, **fields):
    shutil.copytree(sense.parent, directory, dirs_exist_ok=True)
    tree = json.loads(sense.read_text(encoding="utf-8"))
    tree["modalities"]["heat"] |= fields.pop("heat", {})
    (directory / "recipe.yaml").write_text(json.dumps(tree | fields), encoding="utf-8")
    return directory / "recipe.yaml"


def test_a_sense_is_added_to_a_copy(finished_run, sense, tmp_path, capsys):
    before = hashes(finished_run)
    assert command("extend", finished_run, sense, "--out", tmp_path / "run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert hashes(finished_run) == before
    after = hashes(tmp_path / "run")
    assert after.items() > before.items()
    assert [each["path"] for each in told["verified"]] == ["base", *SENSORS]
    assert all(each["identical"] for each in told["verified"])
    [heat] = told["added"]
    assert (heat["modality"], list(heat["scores"])) == ("heat", ["qa"])
    assert heat["trained"] > 0
    assert 0 < heat["share_percent"] < 100
    recipe = RunDirectory(tmp_path / "run").recipe()
    assert recipe.curriculum == (*SENSORS, "heat")
    assert recipe.training_of("heat").steps == 6
    assert recipe.training_of("tilt").steps == 4
    steps = [e["step"] for e in events(tmp_path / "run", "step") if e["stage"] == "heat"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert command("verify", tmp_path / "run") == 0
    # Again: all is done, which is said, and nothing is learnt twice.
    assert command("extend", finished_run, sense, "--out", tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert f"added heat: {heat['trained']:,} parameters trained" in shown
    assert "ok   tilt: bit-identical, before and after" in shown
    assert len(events(tmp_path / "run", "step")) == 4 * len(SENSORS) + 6


def test_a_run_is_extended_in_place(finished_run, sense, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    assert command("extend", run, sense, "--json") == 0
    assert hashes(run).items() > hashes(finished_run).items()
    assert command("extend", run, sense, "--json") == 0  # as after a stop


def test_a_base_is_given_its_first_sense(recipe_file, sense, tmp_path, capsys):
    base = recipe_file.parent / "base"
    assert command("extend", base, sense) == 2
    assert "or a base with --out DIR" in capsys.readouterr().err
    assert command("extend", base, sense, "--out", tmp_path / "run", "--json") == 0
    assert list(hashes(tmp_path / "run")) == ["heat"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base": "mini"}, "base of a recipe that extends a run must be that of the run"),
        ({"method": {"rank": 3}}, "method of a recipe that extends a run"),
        (
            {"heat": {"training": {"connector": True}}},
            "stage 'heat' must leave the connector alone",
        ),
    ],
)
def test_what_would_touch_the_run_is_refused(fields, words, finished_run, sense, tmp_path, capsys):
    recipe = changed(sense, tmp_path, **fields)
    assert command("extend", finished_run, recipe, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_modality_that_is_there_is_not_added(finished_run, recipe_file, tmp_path, capsys):
    tree = json.loads(recipe_file.read_text(encoding="utf-8"))
    del tree["base"], tree["method"]
    tree["curriculum"] = ["tilt"]
    file = recipe_file.parent / "again.yaml"
    file.write_text(json.dumps(tree), encoding="utf-8")
    assert load_recipe(file).curriculum == ("tilt",)
    assert command("extend", finished_run, file, "--out", tmp_path / "run") == 2
    assert "must be new, got 'sight', which the run has" in capsys.readouterr().err


def test_a_path_that_does_not_hold_stops_everything(finished_run, sense, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    file = run / "paths/sound/path.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    description["proof"]["answers"] = ["another"] * len(description["proof"]["answers"])
    file.write_text(json.dumps(description), encoding="utf-8")
    assert command("extend", run, sense, "--out", tmp_path / "out") == 2
    assert "'sound' of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_not_extended(finished_run, sense, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "paths/tilt")
    assert command("extend", run, sense) == 2
    assert "must be a finished run, got none of its stage 'tilt'" in capsys.readouterr().err
