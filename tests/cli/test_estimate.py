import json

import pytest

from tests.tiny import write_tiny_recipe
from tests.whole_runs import command

SENSORS = ("sight", "sound", "tilt")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_tiny_recipe(tmp_path_factory.mktemp("estimate"), *SENSORS)


def made(capsys, *words):
    assert command("estimate", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_tables(recipe, capsys):
    assert command("estimate", recipe, "--modalities", 4) == 0
    shown = capsys.readouterr().out
    for title in ("Trained parameters", "Memory, GB", "Operations a sample", "predecessors"):
        assert title in shown
    assert all(name in shown for name in SENSORS)


def test_json_and_options(recipe, capsys):
    words = (recipe, "--batch-size", 3, "--text-tokens", 7, "--answer-tokens", 5)
    changed = made(capsys, *words, "--modalities", 2, "--set", "method.rank=1")
    assert [stage["modality"] for stage in changed["stages"]] == list(SENSORS)
    stage = changed["stages"][1]
    assert (stage["batch_size"], stage["load"]["text"], stage["load"]["answer"]) == (3, 7, 5)
    assert len(changed["growth"]) == 2
    plain = made(capsys, *words)["stages"][1]
    assert plain["trained"]["adapters"] > stage["trained"]["adapters"]


def test_data_and_weights_need_not_be_there(recipe, capsys):
    before = made(capsys, recipe)
    for file in [*recipe.parent.glob("*.npy"), *recipe.parent.glob("*.jsonl")]:
        file.unlink()
    for file in recipe.parent.glob("base/**/*.safetensors"):
        file.unlink()
    assert made(capsys, recipe) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "error: none.yaml must be a recipe, got No such file or directory"),
        (["{}", "--set", "base=minni"], "base must be one of"),
        (["{}", "--set", "modalities.sound.encoder.kind=beets"], "did you mean 'beats'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(recipe, capsys, words, message):
    assert command("estimate", *(word.format(recipe) for word in words)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_batch_is_refused(recipe, capsys):
    assert command("estimate", recipe, "--batch-size", 0) == 2
    assert "Traceback" not in capsys.readouterr().err
