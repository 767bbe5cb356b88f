"""Reading of the archive's files, and what is made of a set."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pathweave.data.manifest import Manifest
from scripts.sensors.fetch import SETS, read_ts, write_set

HEAD = "#about\n@problemName x\n@classLabel true A b\n@data\n"


def test_a_line_is_a_recording_of_channels_and_a_label(tmp_path):
    file = tmp_path / "x.ts"
    file.write_text(HEAD + "1,2.5,-3e1:4,5,6: A\n\n7:8:b\n", encoding="utf-8")
    (first, label), (second, other) = read_ts(file)
    assert (label, other) == ("a", "b")
    assert first.dtype == np.float32
    assert first.tolist() == [[1, 4], [2.5, 5], [-30, 6]]
    assert second.tolist() == [[7, 8]]


def test_values_that_only_fill_up_are_left_out_and_others_stay_missing(tmp_path):
    file = tmp_path / "x.ts"
    file.write_text(HEAD + "1,?,3,NaN,?:4,5:a\n", encoding="utf-8")
    [(values, _)] = read_ts(file)
    np.testing.assert_array_equal(values, np.array([[1, 4], [np.nan, 5], [3, np.nan]]))


@pytest.mark.parametrize("name", SETS)
def test_training_data_are_split_by_class_and_test_data_are_left_alone(tmp_path, name):
    about = replace(SETS[name], archive="Tiny")
    labels = list(about.answers) * 6
    rows = [f"{i},{i + 1}:{label}" for i, label in enumerate(labels)]
    for part, lines in (("TRAIN", rows), ("TEST", rows[:3])):
        text = HEAD + "\n".join(lines)
        (tmp_path / f"Tiny_{part}.ts").write_text(text, encoding="utf-8")
    assert "Tiny, 1 x 2 to 2" in write_set(name, about, tmp_path, tmp_path / "out")

    def ids(part):
        lines = (tmp_path / "out" / name / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")
        return [json.loads(line)["id"] for line in lines if line]

    assert sorted(ids("fit") + ids("val")) == ids("train")
    assert len(ids("val")) == 2 * len(about.answers)
    assert ids("test") == [f"{name}-test-{i:04d}" for i in range(3)]
    samples = list(Manifest(tmp_path / "out" / name / "val.jsonl"))
    assert {sample.answer for sample in samples} == set(about.answers.values())
    assert all("public archive" in sample.licence for sample in samples)
