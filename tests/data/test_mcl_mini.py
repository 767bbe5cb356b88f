"""The benchmark that ships with the project: what its users rely on, checked on the files."""

from pathlib import Path

import pytest

from pathweave.data.manifest import Manifest
from pathweave.decoders import build_decoder
from scripts.mcl_mini import check

DATA = Path(__file__).parents[2] / "data" / "mcl-mini"
DECODERS = {
    "image": {"kind": "picture"},
    "video": {"kind": "clip"},
    "audio": {"kind": "sound"},
    "depth": {"kind": "range_map"},
    "point_cloud": {"kind": "points"},
}

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="data/mcl-mini is not checked out")


def test_splits_media_licences_and_checksums_are_sound():
    assert check.problems(DATA) == []


@pytest.mark.parametrize("modality", check.MODALITIES)
@pytest.mark.parametrize("task", check.TASKS)
def test_manifest_is_read_and_its_media_decode(modality, task):
    decoder = build_decoder(**DECODERS[modality])
    manifest = Manifest(DATA / modality / f"{task}-test.parquet")
    assert manifest.part_types == {modality}
    for index in (0, len(manifest) // 2, len(manifest) - 1):
        sample = manifest[index]
        part = next(part for part in sample.prompt if not part.is_text)
        decoder(manifest.read_media(part), sample.id)
        assert sample.licence
        assert sample.source
        assert sample.attribution


@pytest.mark.parametrize("modality", check.MODALITIES)
def test_no_answer_is_given_away_by_a_majority(modality):
    answers = [check.answer_of(row) for row in check.rows(DATA / modality / "qa-test.parquet")]
    assert max(answers.count(answer) for answer in set(answers)) < 0.25 * len(answers)
    assert len(answers) >= 300


def test_check_finds_what_is_wrong(tmp_path):
    row = {
        "id": "a",
        "references": ["a cat"],
        "choices": ["a cat"],
        "messages": [
            {"content": [{"type": "x", "path": "media.parquet#k"}]},
            {"content": [{"type": "text", "text": "A very long answer"}]},
        ],
    }
    assert check.key_of(row) == "k"
    problems = check._row_problems("x/qa-test", row, "qa")
    assert [problem.partition(": ")[2].partition(":")[0] for problem in problems] == [
        "the answer is not a reference",
        "the answer is not a choice",
        "the answer is too long",
        "the answer is not in lower case",
    ]
