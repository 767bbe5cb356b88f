import json
import shutil

import pytest

from tests.whole_runs import command, events


@pytest.fixture
def manifest(recipe_file):
    return recipe_file.parent / "sound-test.jsonl"


def scores(capsys, *words):
    assert command("evaluate", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_test_sets_of_the_recipe_score_as_in_the_run(finished_run, capsys):
    found = {score["set"]: score["score"] for score in scores(capsys, finished_run)}
    last = [e for e in events(finished_run, "score") if e["after"] == "tilt"]
    assert found == {f"{e['modality']}/{e['dataset']}": e["score"] for e in last}


def test_a_manifest_with_its_own_and_another_path(finished_run, manifest, capsys):
    words = (finished_run, manifest, "--metric", "ranking")
    [own] = scores(capsys, *words)
    assert (own["set"], own["metric"], own["num_samples"]) == ("sound-test", "ranking", 6)
    [other] = scores(capsys, *words, "--path", "tilt")
    assert other["num_samples"] == 6
    assert 0 <= other["score"] <= 100


def test_a_limit_and_generated_answers(finished_run, manifest, capsys):
    [score] = scores(capsys, finished_run, manifest, "--limit", 2, "--max-tokens", 2)
    expected = {"metric": "exact_match", "num_samples": 2, "num_usable": 6, "num_total": 6}
    assert score.items() >= expected.items()
    assert score["bad"] == []


def test_the_score_is_whole_on_a_narrow_terminal(finished_run, manifest, capsys, monkeypatch):
    [score] = scores(capsys, finished_run, manifest, "--metric", "ranking")
    monkeypatch.setenv("COLUMNS", "20")
    assert command("evaluate", finished_run, manifest, "--metric", "ranking") == 0
    shown = capsys.readouterr().out
    assert "\u2026" not in shown
    assert "6 of 6" in shown
    for value in ("sound-test", "metric", "scored", f"{score['score']:.1f}", f"{score['low']:.1f}"):
        assert value in shown


def test_no_token_is_refused(finished_run, manifest, capsys):
    assert command("evaluate", finished_run, manifest, "--max-tokens", 0) == 2
    error = capsys.readouterr().err
    assert "'--max-tokens'" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metric", "exactly"], "metric must be one of ['bleu_1', 'bleu_2',"),
        (["--path", "tild"], "got 'tild'; did you mean 'tilt'?"),
        (["nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_input_is_one_line(finished_run, manifest, capsys, words, said):
    assert command("evaluate", finished_run, manifest, *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_a_path_that_is_not_learnt_yet(finished_run, recipe_file, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "paths" / "tilt")
    manifest = recipe_file.parent / "tilt-test.jsonl"
    assert command("evaluate", tmp_path / "run", manifest, "--json") == 2
    assert "must be one of ['sight', 'sound'], got 'tilt'" in capsys.readouterr().err
