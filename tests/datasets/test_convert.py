import io
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from pathweave.data.coverage import Coverage, coverage_file, load_coverage
from pathweave.data.manifest import Manifest
from pathweave.datasets.convert import convert, problems_file
from pathweave.datasets.declaration import find_dataset
from pathweave.decoders import build_decoder
from pathweave.errors import ManifestError, RecipeError
from tests.datasets.files import CASES, medium, write, write_case


def converted(name, source, out, **options):
    return convert(name, source, out, **options)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.split}")
def test_every_split_becomes_a_manifest_whose_media_can_be_read(case, whole_root, tmp_path):
    ending = "jsonl" if case.split == "val" else "parquet"
    out = tmp_path / "manifests" / f"{case.name}.{ending}"
    coverage = converted(case.name, whole_root, out, split=case.split)
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
    converted("modelnet40", whole_root, out)
    manifest = Manifest(out)
    part = manifest[2].prompt[0]
    assert part.path == "modelnet.jsonl.media.parquet#bed_0516"
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
    coverage = converted("clotho_v2", root, out, split="evaluation")
    assert str(coverage) == "1 of 3"
    assert json.loads(coverage_file(out).read_text(encoding="utf-8")) == {
        "dataset": "clotho_v2",
        "split": "evaluation",
        "usable": 1,
        "missing": 1,
        "broken": 1,
        "flawed": 0,
        "left_out": 0,
    }
    listed = [
        json.loads(line) for line in problems_file(out).read_text(encoding="utf-8").splitlines()
    ]
    assert {problem["kind"]: problem["reason"][:40] for problem in listed} == {
        "missing": "no file clotho_v2/evaluation/b.wav",
        "broken": "a row must have the columns file_name, c",
    }
    assert all(f"{root / name}, row" in problem["place"] for problem in listed)
    write_case(tmp_path / "data", case)
    converted("clotho_v2", root, out, split="evaluation")
    assert not problems_file(out).exists()


def test_a_failure_leaves_nothing(tmp_path):
    case = next(case for case in CASES if case.name == "flickr30k")
    root = write_case(tmp_path / "data", case)
    file = root / "flickr30k/annotations/test.json"
    file.write_text(file.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    out = tmp_path / "out" / "flickr.jsonl"
    with pytest.raises(ManifestError, match="must be whole JSON"):
        converted("flickr30k", root, out)
    file.unlink()
    with pytest.raises(ManifestError, match="must exist, got no such file; correct the path"):
        converted("flickr30k", root, out)
    assert list(out.parent.iterdir()) == []


def test_an_unknown_split(tmp_path):
    with pytest.raises(RecipeError, match=r"a split of gqa must be one of \['testdev'\], got 'tes"):
        converted("gqa", tmp_path, tmp_path / "a.jsonl", split="test")


def test_without_a_split_the_first_that_is_scored_is_taken():
    assert find_dataset("msrvtt_caption").split()[0] == "val"
    assert find_dataset("wavcaps").split()[0] == "train"


def test_a_manifest_without_coverage_and_one_with_another_file(tmp_path):
    assert load_coverage(tmp_path / "a.jsonl") is None
    (tmp_path / "a.jsonl.coverage.json").write_text('{"score": 1}', encoding="utf-8")
    with pytest.raises(ManifestError, match=r"must hold the coverage of a\.jsonl, got another"):
        load_coverage(tmp_path / "a.jsonl")


def test_coverage_in_words():
    found = Coverage(dataset="a", split="b", usable=1381, missing=100, broken=19, left_out=7)
    assert (str(found), found.annotated) == ("1,381 of 1,500", 1500)


def turns():
    return [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def test_nothing_usable_is_told_with_the_first_reason(tmp_path):
    rows = [{"conversations": turns()[:1]}, {"image": "no.png", "conversations": turns()}]
    source = write(tmp_path, "a.json", rows)
    with pytest.raises(
        ManifestError,
        match=r"sample that can be used, got 2 broken; the first: .*a\.json, row 1: a c",
    ):
        converted("llava", source, tmp_path / "out" / "a.jsonl")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.problems.jsonl", "a.jsonl.problems.jsonl"])
def test_what_is_read_is_not_written(name, tmp_path):
    rows = [{"conversations": turns()}, {"conversations": []}]
    source = write(tmp_path, name, "\n".join(map(json.dumps, rows)))
    (tmp_path / "link").symlink_to(tmp_path)
    before, out = source.read_bytes(), tmp_path / "link" / "a.jsonl"
    if name != "a.problems.jsonl":
        with pytest.raises(ManifestError, match=r"--out must not take the place of what is read"):
            converted("sharegpt", source, out)
    else:
        converted("sharegpt", source, out)
    assert source.read_bytes() == before


def test_a_failure_keeps_the_media_of_an_earlier_manifest(whole_root, tmp_path):
    case = next(case for case in CASES if case.name == "modelnet40")
    root, out = write_case(tmp_path / "data", case), tmp_path / "out" / "mod.jsonl"
    converted("modelnet40", root, out)
    files = {file: file.read_bytes() for file in out.parent.iterdir()}
    names = root / "modelnet40_normal_resampled/modelnet40_shape_names.txt"
    names.write_text("x\ny\nz\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"got 3 broken; the first: .* a label must be one o"):
        converted("modelnet40", root, out)
    with pytest.raises(ManifestError, match=r"must be a \.jsonl or \.parquet file, got mod"):
        converted("modelnet40", whole_root, out.with_suffix(".csv"))
    assert {file: file.read_bytes() for file in out.parent.iterdir()} == files


def test_manifests_of_one_stem_have_their_own_coverage(whole_root, tmp_path):
    for name, ending in (("esc50", "parquet"), ("clotho_v1", "jsonl")):
        converted(name, whole_root, tmp_path / f"x.{ending}")
    assert load_coverage(tmp_path / "x.parquet").dataset == "esc50"
    assert load_coverage(tmp_path / "x.jsonl").dataset == "clotho_v1"


LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_path_that_is_not_utf_8(name, tmp_path):
    case = next(case for case in CASES if case.name == "esc50")
    root = write_case(tmp_path / LATIN, case)
    with pytest.raises(ManifestError, match=r"its media must be UTF-8, got '.*udce9'; rename the"):
        converted("esc50", root, tmp_path / name)
    with pytest.raises(ManifestError, match=r"path of a manifest must be UTF-8, got '.*; choose"):
        converted("esc50", root, root / name)


def test_problems_of_a_file_whose_path_is_not_utf_8(tmp_path):
    source = write(tmp_path, f"{LATIN}/a.json", [{"conversations": turns()}, 5])
    out = tmp_path / "a.jsonl"
    converted("sharegpt", source, out, media=tmp_path)
    (problem,) = map(json.loads, problems_file(out).read_text(encoding="utf-8").splitlines())
    assert problem["place"] == f"{source}, row 2"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_source_whose_name_is_not_utf_8(name, tmp_path):
    source = write(tmp_path, f"{LATIN}.json", [{"conversations": turns()}])
    converted("sharegpt", source, tmp_path / name)
    assert Manifest(tmp_path / name)[0].source == "caf\\udce9.json"


COCO = {
    "images": [
        {"id": 1, "file_name": "a.png"},
        {"id": 2, "file_name": "sub/c.png"},
        {"id": 3, "file_name": "b.png"},
    ],
    "annotations": [
        {"id": 10, "image_id": 2, "caption": "A Cat."},
        {"id": 11, "image_id": 1, "caption": "A dog."},
        {"id": 12, "image_id": 2, "caption": "Cats"},
    ],
}


def captions(root, tree, **options):
    for file in ("a.png", "b.png", "sub/c.png"):
        write(root, f"media/{file}", medium(".png"))
    out = root / "out" / "a.jsonl"
    options = {"media": root / "media", "modality": "image", **options}
    coverage, fields = convert("coco", write(root, "a.json", tree), out, **options)
    assert fields == {}
    return coverage, list(Manifest(out)), out


def test_captions_to_be_scored_on(tmp_path):
    coverage, found, _ = captions(tmp_path, COCO)
    assert [(sample.id, sample.references) for sample in found] == [
        ("2", ("A Cat.", "Cats")),
        ("1", ("A dog.",)),
    ]
    shown, asked = found[0].prompt
    assert (shown.type, shown.path) == ("image", "../media/sub/c.png")
    assert asked.text == "a short description."
    assert found[0].source == "a.json"
    assert (coverage.usable, coverage.left_out) == (2, 1)


def test_of_captions_the_pictures_are_counted(tmp_path):
    images = [*COCO["images"], {"file_name": "d.png"}]
    annotations = [*COCO["annotations"], {"image_id": 1, "caption": ""}, {"image_id": 9},
                   {"image_id": 3, "caption": None}, {"image_id": 3, "caption": []}]  # fmt: skip
    broken = {"images": images, "annotations": annotations}
    coverage, _, _ = captions(tmp_path, broken)
    found = coverage.model_dump(include={"usable", "broken", "flawed", "left_out"})
    assert found == {"usable": 2, "broken": 2, "flawed": 3, "left_out": 0}


def test_captions_to_be_learnt(tmp_path):
    _, found, _ = captions(tmp_path, COCO, every_caption=True)
    assert [(sample.id, sample.object, sample.answer) for sample in found] == [
        ("1", "2", "a cat"),
        ("2", "1", "a dog"),
        ("3", "2", "cats"),
    ]


def test_captions_of_marks_alone_cannot_be_learnt(tmp_path):
    marks = {**COCO, "annotations": [{"image_id": 1, "caption": "..."}, *COCO["annotations"]]}
    coverage, _, out = captions(tmp_path, marks, every_caption=True)
    assert (coverage.usable, coverage.broken) == (3, 1)
    assert "a target must hold words, got '...'" in problems_file(out).read_text(encoding="utf-8")


def test_captions_need_a_modality_and_their_images(tmp_path):
    with pytest.raises(
        RecipeError, match=r"captions must be given the type of their media, got no"
    ):
        convert("coco", tmp_path, tmp_path / "a.jsonl")
    annotations = [*COCO["annotations"], {"image_id": 9, "caption": "x"}]
    broken = {"images": COCO["images"], "annotations": annotations}
    _, _, out = captions(tmp_path, broken)
    assert "image_id must name one record of 'images', got '9'" in problems_file(out).read_text(
        encoding="utf-8"
    )
    with pytest.raises(ManifestError, match=r"must hold the list 'images', got the fields"):
        captions(tmp_path, {"annotations": []})


@pytest.mark.parametrize("name", ["http://a/b.png", "../a.png", "/a.png", None, ""])
def test_a_picture_of_captions_that_names_no_file_below_the_media(name, tmp_path):
    images = [{**COCO["images"][0], "file_name": name}, *COCO["images"][1:]]
    coverage, _, out = captions(tmp_path, {**COCO, "images": images})
    assert (coverage.usable, coverage.broken) == (1, 1)
    (problem,) = map(json.loads, problems_file(out).read_text(encoding="utf-8").splitlines())
    assert problem["reason"].endswith("; correct the row or remove it")
