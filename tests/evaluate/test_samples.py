"""Statistics of scored samples: kept beside the answers, or measured from them anew."""

import json

import numpy as np
import pytest

from pathweave.data.manifest import Manifest
from pathweave.errors import RunError
from pathweave.evaluate.samples import load_answers, measure, save_answers
from pathweave.metrics import METRICS
from pathweave.recipe.schema import TestSet


@pytest.fixture
def test_set(tmp_path):
    rows = []
    for i, (answer, thing) in enumerate([("red", "hat"), ("blue", "hat"), ("red", None)]):
        question = {"role": "user", "content": [{"type": "text", "text": f"Which colour, {i}?"}]}
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        own = {"object": thing} if thing else {}
        rows.append({"id": f"s{i}", "messages": [question, said], **own})
    file = tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return TestSet(manifest=str(file), metric="exact_match")


ANSWERS = ["red", "green", "red"]


def written(test_set, directory):
    samples = list(Manifest(directory / "test.jsonl"))
    found = measure(samples, ANSWERS, test_set.metric)
    file = directory / "answers" / "sight-v1.2.jsonl"
    save_answers(file, [sample.id for sample in samples], ANSWERS, found)
    return file, found


def test_samples_of_one_object_have_its_number_and_others_one_of_their_own(test_set, tmp_path):
    _, found = written(test_set, tmp_path)
    assert found.statistics.tolist() == [[100.0], [0.0], [100.0]]
    assert METRICS["exact_match"].score(found.statistics) == pytest.approx(200 / 3)
    first, second, third = found.objects
    assert first == second != third
    again = measure(list(Manifest(tmp_path / "test.jsonl"))[1:], ANSWERS[1:], test_set.metric)
    assert again.objects.tolist() == [second, third]


def test_what_is_kept_needs_no_data_set(test_set, tmp_path):
    file, found = written(test_set, tmp_path)
    (tmp_path / "test.jsonl").unlink()
    ids, tensors = load_answers(file, test_set)
    assert ids == ["s0", "s1", "s2"]
    assert np.array_equal(tensors["statistics"].numpy(), found.statistics)
    assert np.array_equal(tensors["objects"].numpy(), found.objects)


def test_answers_alone_are_measured_anew(test_set, tmp_path):
    file, _ = written(test_set, tmp_path)
    _, kept = load_answers(file, test_set)
    (tmp_path / "answers" / "sight-v1.2.safetensors").unlink()
    ids, tensors = load_answers(file, test_set)
    assert ids == ["s0", "s1", "s2"]
    assert all(tensors[name].equal(kept[name]) for name in ("statistics", "objects"))


@pytest.mark.parametrize("beside", [b"", b"nonsense", None])
@pytest.mark.parametrize("lines", [b"{", b"[]\n", b'{"id": "s9", "answer": "red"}\n', b"\xff"])
def test_damaged_answers_are_refused(test_set, tmp_path, beside, lines):
    file, _ = written(test_set, tmp_path)
    file.write_bytes(lines)
    if beside is None:
        file.with_suffix(".safetensors").unlink()
    else:
        file.with_suffix(".safetensors").write_bytes(beside)
    message = r"sight-v1\.2\.jsonl must hold answers to samples.*remove scores\.json beside"
    with pytest.raises(RunError, match=message):
        load_answers(file, test_set)


def test_statistics_of_other_answers_are_refused(test_set, tmp_path):
    file, _ = written(test_set, tmp_path)
    file.write_text('{"id": "s0", "answer": "red"}\n', encoding="utf-8")
    with pytest.raises(RunError, match="1 answers and 3 statistics"):
        load_answers(file, test_set)
