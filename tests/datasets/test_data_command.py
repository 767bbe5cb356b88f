import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pathweave.cli.data import data_app
from pathweave.data.manifest import Manifest
from pathweave.datasets.declaration import datasets
from pathweave.errors import RecipeError
from pathweave.metrics import METRICS
from pathweave.recipe.schema import TestSet
from tests.datasets.files import CASES, write, write_case


def run(*words):
    return CliRunner().invoke(data_app, [str(word) for word in words])


def refused(*words):
    """Return the error that the command line prints in one line."""
    error = run(*words).exception
    assert isinstance(error, RecipeError)
    return str(error)


@pytest.fixture
def esc50(tmp_path):
    return write_case(tmp_path / "data", next(case for case in CASES if case.name == "esc50"))


def test_list():
    shown = run("list")
    assert shown.exit_code == 0
    assert "esc50 audio classification out all ranking" in " ".join(shown.stdout.split())
    assert "esc50 CC BY-NC 3.0" in " ".join(shown.stdout.split())
    listed = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in listed] == list(datasets())
    esc = next(row for row in listed if row["name"] == "esc50")
    assert esc["evaluation"]["open"]["decoding"]["repetition_penalty"] == 1.5
    assert esc["splits"]["all"]["files"] == ["esc50/meta/esc50.csv"]


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_of_all_data_sets_is_whole(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("list").stdout.splitlines()
    assert all(len(line) <= columns for line in lines)
    table = " ".join(lines[: lines.index("* splits to learn from")]).split()
    assert table[:6] == ["name", "media", "task", "domain", "splits", "metric"]
    wanted = [
        word
        for row in json.loads(run("list", "--json").stdout)
        for word in (row["name"], *row["modalities"], row["task"], row["domain"],
                     *(name + "*" * split["learn"] for name, split in row["splits"].items()),
                     *(how["metric"] for how in row["evaluation"].values()))
    ]  # fmt: skip
    assert Counter(table[6:]) == Counter(wanted)


def test_check(esc50):
    result = run("check", esc50, "--hash")
    assert result.exit_code == 0
    assert "2 of 2" in result.stdout
    assert "esc50/meta/esc50.csv" in result.stdout
    assert "absent: audiocaps_caption train, " in result.stdout
    assert "esc50 all" not in result.stdout.split("absent:")[1]
    reports = json.loads(run("check", esc50, "--only", "esc50", "--json").stdout)
    assert (len(reports), reports[0]["state"], reports[0]["samples"]) == (1, "found", "2 of 2")


def test_check_fails_for_what_is_broken_and_for_what_is_named_and_absent(esc50):
    assert run("check", esc50, "--only", "gqa").exit_code == 1
    assert run("check", esc50, "--only", "esc50", "--only", "gqa").exit_code == 1
    (esc50 / "esc50/audio/1-100032-A-0.wav").unlink()
    assert run("check", esc50).exit_code == 0
    sound = esc50 / "esc50/audio/1-100038-A-14.wav"
    sound.write_bytes(sound.read_bytes()[:-100])
    result = run("check", esc50)
    assert result.exit_code == 1
    assert "1-100038-A-14.wav must be a whole .wav file" in result.stdout
    write(esc50, "esc50/meta/esc50.csv", "filename\n")
    assert run("check", esc50).exit_code == 0  # no row: nothing broken, and 0 of 0 is shown
    write(esc50, "esc50/meta/esc50.csv", "")
    result = run("check", esc50)
    assert (result.exit_code, "damaged: 0 of 0" in result.stdout) == (1, True)


def test_check_lists_all(tmp_path):
    rows = [{"video": f"{i}.avi", "question": "x?", "answer": "y", "question_id": i}
            for i in range(30)]  # fmt: skip
    write(tmp_path, "msvd/annotations/qa_test.json", rows)
    assert run("check", tmp_path).stdout.count("missing:") == 20
    assert run("check", tmp_path, "--all").stdout.count("missing:") == 30


def test_decode(esc50):
    assert run("check", esc50, "--decode").exit_code == 0
    sound = esc50 / "esc50/audio/1-100038-A-14.wav"
    sound.write_bytes(sound.read_bytes()[:44].replace(b"fmt ", b"xxxx"))
    assert run("check", esc50, "--decode").exit_code == 1


def test_convert(esc50, tmp_path):
    out = tmp_path / "esc50.parquet"
    result = run("convert", "esc50", esc50, "--out", out)
    assert result.exit_code == 0
    assert f"{out}: 2 of 2 samples" in result.stdout
    assert f"in a recipe: {{manifest: {out}, metric: ranking}}" in result.stdout
    assert Manifest(out)[0].prompt[0].path == "data/esc50/audio/1-100032-A-0.wav"


def test_candidates_are_those_of_the_way_of_scoring(esc50, tmp_path):
    out = tmp_path / "open.jsonl"
    words = ("convert", "esc50", esc50, "--evaluation", "open", "--out", out, "--json")
    fields = json.loads(run(*words).stdout)["test_set"]
    assert (fields["metric"], fields["max_tokens"]) == ("word_match", 80)
    sample = Manifest(out)[1]
    assert (sample.answer, sample.choices[0]) == ("chirping birds", "dog")


def test_convert_as_json(esc50, tmp_path):
    (esc50 / "esc50/audio/1-100032-A-0.wav").unlink()
    out = tmp_path / "esc50.jsonl"
    result = json.loads(run("convert", "esc50", esc50, "--out", out, "--json").stdout)
    assert (result["usable"], result["missing"], result["test_set"]) == (
        1,
        1,
        {"metric": "ranking"},
    )
    assert result["problems"] == str(tmp_path / "esc50.jsonl.problems.jsonl")


def test_convert_to_learn_from(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("gqa", "testdev"))
    root = write_case(tmp_path, replace(case))
    result = json.loads(run("convert", "gqa", root, "--out", tmp_path / "a.jsonl", "--json").stdout)
    assert result["test_set"]["max_tokens"] == 10
    case = next(case for case in CASES if (case.name, case.split) == ("msrvtt_qa", "train"))
    words = ("convert", "msrvtt_qa", write_case(tmp_path, case), "--split", "train")
    result = json.loads(run(*words, "--seed", 3, "--out", tmp_path / "b.jsonl", "--json").stdout)
    assert (result["usable"], result["test_set"]) == (2, {})


def test_convert_a_file_of_another_project(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    source = write(tmp_path, "a.json", [{"id": "x", "conversations": turns}])
    out = tmp_path / "a.jsonl"
    result = run("convert", "sharegpt", source, "--out", out, "--licence", "CC0-1.0")
    assert result.stdout == f"{out}: 1 of 1 samples\n"
    assert Manifest(out)[0].licence == "CC0-1.0"


def test_text_of_an_option_that_is_not_utf_8_is_refused(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    source = write(tmp_path, "a.JSONL", json.dumps({"conversations": turns}))
    words = ("convert", "llava", source, "--out", tmp_path / "out.JSONL")
    half = os.fsdecode(b"caf\xe9")
    assert refused(*words, "--licence", half).startswith("--licence must be text in UTF-8, got 'ca")
    assert refused(*words, "--modality", half).startswith("--modality must be text in UTF-8, got ")
    assert run(*words).exit_code == 0
    assert Manifest(tmp_path / "out.JSONL")[0].answer == "Hello"


def test_options_that_do_not_fit_are_refused(esc50, tmp_path):
    out = ("--out", tmp_path / "a.jsonl")
    assert "FORMAT must be one of" in refused("convert", "esc5", esc50, *out)
    assert "did you mean 'esc50'?" in refused("convert", "esc5", esc50, *out)
    assert refused("convert", "llava", esc50, "--split", "train", *out) == (
        "--split must be left out for llava; remove it"
    )
    assert refused("convert", "esc50", esc50, "--modality", "x", *out) == (
        "--modality must be left out for esc50, which declares it; remove it"
    )
    assert "--every-caption must be left out" in refused(
        "convert", "esc50", esc50, "--every-caption", *out
    )
    assert "--modality image" in refused("convert", "coco", esc50, *out)
    assert refused("convert", "esc50", esc50, "--evaluation", "opne", *out) == (
        "--evaluation of esc50 must be one of ['closed', 'open'], got 'opne'; did you mean 'open'?"
    )


def test_declared_decoding_fits_a_recipe():
    """As soon as a recipe's test sets have all fields of decoding, all of them fit."""
    for dataset in datasets().values():
        for name in dataset.evaluation:
            fields = dataset.test_set(name)
            assert fields.keys() <= {"metric", "beams", "max_tokens", "min_tokens",
                                     "length_penalty", "repetition_penalty"}  # fmt: skip
            assert fields["metric"] in METRICS
            if fields.keys() <= TestSet.model_fields.keys():
                assert TestSet.model_validate({"manifest": "a.jsonl", **fields})


def test_text_that_is_not_utf_8_is_printed_as_an_escape(esc50):
    root = esc50.parent / os.fsdecode(b"caf\xe9")
    esc50.rename(root)
    (root / "esc50/audio/1-100032-A-0.wav").unlink()
    assert "caf\\udce9/esc50/meta/esc50.csv, row 1: no file" in run("check", root).stdout
    (report,) = json.loads(run("check", root, "--only", "esc50", "--json").stdout)
    assert report["problems"][0].startswith(f"missing: {root}/esc50")
