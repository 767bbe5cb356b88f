import io
import json
from dataclasses import replace

import numpy as np
import pytest

from pathweave.data.coverage import Coverage, coverage_file, load_coverage
from pathweave.data.decode import build_decoder
from pathweave.data.manifest import Manifest
from pathweave.errors import ManifestError, RecipeError
from pathweave.mcl.convert import convert_dataset, problems_file
from pathweave.mcl.declaration import find_dataset
from tests.mcl.files import CASES, write_case


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.split}")
def test_every_split_becomes_a_manifest_whose_media_can_be_read(case, whole_root, tmp_path):
    ending = "jsonl" if case.split == "val" else "parquet"
    out = tmp_path / "manifests" / f"{case.name}.{ending}"
    coverage = convert_dataset(find_dataset(case.name), case.split, whole_root, out)
    assert (coverage.usable, coverage.left_out) == (len(case.expected), case.left_out)
    assert load_coverage(out) == coverage
    assert not problems_file(out).exists()
    manifest = Manifest(out)
    assert len(manifest) == len(case.expected)
    for sample in manifest:
        for part in sample.prompt[:-1]:
            assert manifest.read_media(part)


def test_clouds_of_a_pickle_go_to_a_media_store(whole_root, tmp_path):
    out = tmp_path / "modelnet.jsonl"
    convert_dataset(find_dataset("modelnet40"), None, whole_root, out)
    manifest = Manifest(out)
    part = manifest[2].prompt[0]
    assert part.path == "modelnet.media.parquet#bed_0516"
    points = np.load(io.BytesIO(manifest.read_media(part)))
    np.testing.assert_array_equal(points, np.full((16, 6), 2, dtype=np.float32))
    assert build_decoder("points")(manifest.read_media(part), "bed").pixels.shape[0] == 1


def test_what_is_missing_is_counted_and_listed(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("clotho_v2", "evaluation"))
    name = "clotho_v2/clotho_captions_evaluation.csv"
    files = {name: case.files[name] + "c.wav,one\n"}
    root = write_case(tmp_path / "data", replace(case, files=files))
    (root / "clotho_v2/evaluation/b.wav").unlink()
    out = tmp_path / "clotho.jsonl"
    coverage = convert_dataset(find_dataset("clotho_v2"), "evaluation", root, out)
    assert str(coverage) == "1 of 3"
    assert json.loads(coverage_file(out).read_text()) == {
        "dataset": "clotho_v2",
        "split": "evaluation",
        "usable": 1,
        "missing": 1,
        "broken": 1,
        "left_out": 0,
    }
    listed = [json.loads(line) for line in problems_file(out).read_text().splitlines()]
    assert {problem["kind"]: problem["reason"][:40] for problem in listed} == {
        "missing": "no file clotho_v2/evaluation/b.wav",
        "broken": "a row must have the columns file_name, c",
    }
    assert all(f"{root / name}, row" in problem["place"] for problem in listed)
    write_case(tmp_path / "data", case)
    convert_dataset(find_dataset("clotho_v2"), "evaluation", root, out)
    assert not problems_file(out).exists()


def test_a_failure_leaves_nothing(tmp_path):
    case = next(case for case in CASES if case.name == "flickr30k")
    root = write_case(tmp_path / "data", case)
    file = root / "flickr30k/annotations/test.json"
    file.write_text(file.read_text()[:-8])
    out = tmp_path / "out" / "flickr.jsonl"
    with pytest.raises(ManifestError, match="must be whole JSON"):
        convert_dataset(find_dataset("flickr30k"), None, root, out)
    file.unlink()
    with pytest.raises(ManifestError, match="must exist, got no such file; download it"):
        convert_dataset(find_dataset("flickr30k"), None, root, out)
    assert list(out.parent.iterdir()) == []


def test_an_unknown_split(tmp_path):
    with pytest.raises(RecipeError, match=r"a split of gqa must be one of \['testdev'\], got 'tes"):
        convert_dataset(find_dataset("gqa"), "test", tmp_path, tmp_path / "a.jsonl")


def test_without_a_split_the_first_that_is_scored_is_taken():
    assert find_dataset("msrvtt_caption").split()[0] == "val"
    assert find_dataset("wavcaps").split()[0] == "train"


def test_a_manifest_without_coverage_and_one_with_another_file(tmp_path):
    assert load_coverage(tmp_path / "a.jsonl") is None
    (tmp_path / "a.coverage.json").write_text('{"score": 1}')
    with pytest.raises(ManifestError, match=r"must hold the coverage of a\.jsonl, got another"):
        load_coverage(tmp_path / "a.jsonl")


def test_coverage_in_words():
    found = Coverage(dataset="a", split="b", usable=1381, missing=100, broken=19, left_out=7)
    assert (str(found), found.annotated) == ("1,381 of 1,500", 1500)
