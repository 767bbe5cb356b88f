import json

import pytest

from pathweave.evaluate.results import Results
from tests.whole_runs import command


def test_the_report_is_shown(recipe_file, finished_run, capsys):
    assert command("evolve", recipe_file, "--out", finished_run) == 0
    captured = capsys.readouterr()
    assert "tiny: scores after each stage" in captured.out
    assert "Try next:" in captured.out
    assert "--tilt FILE 'What is this?'" in captured.out
    assert "resuming: sight, sound, tilt already learnt" in captured.err


def test_json_is_the_only_output(recipe_file, finished_run, capsys):
    assert command("evolve", recipe_file, "--out", finished_run, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    printed = Results.model_validate(json.loads(captured.out))
    assert printed.scores == Results.load(finished_run / "results.json").scores


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "training.lr"], "--set must be given as field=value, got 'training.lr'"),
        (["--set", "training.stepz=3"], "got 'stepz'; did you mean 'steps'?"),
        (["--set", "training.steps=0"], "training.steps"),
        (["--set", "curriculum=[sight, soundd]"], "got 'soundd'; did you mean 'sound'?"),
        (["--set", "base=big"], "base must be one of ['mini'], got 'big'"),
    ],
)
def test_a_bad_setting_is_one_line(recipe_file, tmp_path, capsys, words, said):
    assert command("evolve", recipe_file, "--out", tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_missing_recipe_is_one_line(tmp_path, capsys):
    assert command("evolve", tmp_path / "none.yaml", "--out", tmp_path / "run") == 2
    assert "none.yaml must be a recipe, got No such file" in capsys.readouterr().err


def test_quick_needs_its_section(recipe_file, tmp_path, capsys):
    recipe = json.loads(recipe_file.read_text(encoding="utf-8"))
    del recipe["quick"]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    words = ("evolve", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--quick")
    assert command(*words) == 2
    assert "must have a section quick: for --quick, got none" in capsys.readouterr().err
