import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest

from pathweave.data.coverage import Coverage
from pathweave.datasets.check import SplitReport, check_root, show_reports
from pathweave.datasets.convert import convert
from pathweave.datasets.declaration import datasets
from pathweave.datasets.media_files import FoundMedium, check_medium
from pathweave.errors import ManifestError, RecipeError
from tests.datasets.files import CASES, clouds, medium, write, write_case


def case_of(name, split):
    return next(case for case in CASES if (case.name, case.split) == (name, split))


def report_of(root, name, split, **options):
    reports = check_root(root, [name], **options)
    return next(report for report in reports if report.split == split)


def test_a_whole_root_is_sound(whole_root):
    reports = check_root(whole_root)
    assert len(reports) == len(CASES)
    for report, case in zip(
        sorted(reports, key=lambda r: (r.dataset, r.split)),
        sorted(CASES, key=lambda c: (c.name, c.split)),
        strict=True,
    ):
        assert report.problems == []
        assert (report.state, report.is_sound, report.corrupt) == ("found", True, 0)
        assert (report.coverage.usable, report.coverage.annotated) == (len(case.expected),) * 2
        assert report.coverage.left_out == case.left_out
        assert report.to_json()["samples"] == f"{len(case.expected)} of {len(case.expected)}"
        assert all(file.sha256 is None for file in report.files)


def test_an_empty_root_and_none(tmp_path):
    reports = check_root(tmp_path)
    assert {report.state for report in reports} == {"absent"}
    assert all(report.is_sound and report.coverage is None for report in reports)
    with pytest.raises(ManifestError, match=r"must be a directory of data sets, got none; correct"):
        check_root(tmp_path / "no")
    with pytest.raises(RecipeError, match=r"a data set must be one of .* got 'esc5'; did you mean"):
        check_root(tmp_path, ["esc5"])


def test_hashes_of_annotation_files(tmp_path):
    case = case_of("okvqa", "val")
    root = write_case(tmp_path, case)
    report = report_of(root, "okvqa", "val", hashes=True)
    expected = {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in case.files}
    assert {file.path: file.sha256 for file in report.files} == expected
    assert {file.path: file.num_bytes for file in report.files} == {
        path: (root / path).stat().st_size for path in case.files
    }


def test_a_missing_file_of_several_is_a_problem_of_the_report(tmp_path):
    case = case_of("okvqa", "val")
    root = write_case(tmp_path, case)
    (root / "okvqa/annotations/OpenEnded_mscoco_val2014_questions.json").unlink()
    report = report_of(root, "okvqa", "val")
    assert (report.state, report.is_sound, report.coverage) == ("damaged", False, None)
    assert "questions.json must exist, got no such file; download it" in report.problems[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold an object or a list, got ''"),
        (b'[{"image": "a.jpg"', "must be whole JSON"),
        (b"\xff\xfe\x00", "must hold an object or a list"),
        (b"<!DOCTYPE html>", "must hold an object or a list, got '<!DOCTYPE html>"),
    ],
)
def test_a_damaged_annotation_file_is_a_problem_of_the_report(content, message, tmp_path):
    write(tmp_path, "vizwiz/annotations/val.json", content)
    report = report_of(tmp_path, "vizwiz", "val")
    assert (report.state, report.is_sound) == ("damaged", False)
    assert message in report.problems[0]
    assert str(report.coverage) == "0 of 0"


def test_a_malicious_pickle_is_a_problem_of_the_report(tmp_path):
    case = case_of("modelnet40", "test")
    name = "modelnet40_normal_resampled/modelnet40_test_8192pts_fps.dat"
    files = {**case.files, name: b"cposix\nsystem\n(S'true'\ntR."}
    report = report_of(write_case(tmp_path, replace(case, files=files)), "modelnet40", "test")
    assert report.state == "damaged"
    assert "got the name posix.system; nothing of it was run" in report.problems[0]


@pytest.mark.parametrize("place", ["directory", "link", "loop", "fifo"])
def test_what_is_no_file_is_not_absent(place, tmp_path):
    file = tmp_path / "vizwiz/annotations/val.json"
    file.parent.mkdir(parents=True)
    {
        "directory": file.mkdir,
        "link": lambda: file.symlink_to("nowhere"),
        "loop": lambda: file.symlink_to(file.name),
        "fifo": lambda: os.mkfifo(file),
    }[place]()
    report = report_of(tmp_path, "vizwiz", "val", hashes=True)
    assert (report.state, report.is_sound) == ("damaged", False)
    assert report.problems[0].startswith(f"{file} must be ")


def test_names_that_no_file_can_have(tmp_path):
    with pytest.raises(ManifestError, match=r"must be a directory of data sets, got none; correct"):
        check_root(tmp_path / ("a" * 300))
    (tmp_path / "vizwiz").write_text("a file", encoding="utf-8")
    assert report_of(tmp_path, "vizwiz", "val").state == "absent"


def test_media_that_cannot_be_reached_are_broken(tmp_path):
    case = case_of("esc50", "all")
    root = write_case(tmp_path, replace(case, media=[]))
    (root / "esc50/audio").symlink_to("audio")
    report = report_of(root, "esc50", "all")
    assert (report.coverage.broken, report.is_sound) == (2, False)
    assert "A-0.wav must be readable, got Too many levels of symbolic links" in report.problems[0]


@pytest.mark.parametrize("path", [".", "/", "./", ""])
def test_the_path_of_a_medium_that_names_no_file(path, tmp_path):
    case = case_of("sun_rgbd", "val")
    rows = [{"image_path": path, "label": "lab"}]
    files = {"SUNRGBD/SUN-RGBD_val.json": rows}
    report = report_of(write_case(tmp_path, replace(case, files=files)), "sun_rgbd", "val")
    assert (report.state, report.coverage.broken) == ("found", 1)
    merged = case_of("wavcaps", "train")
    files = {name: {"data": [{"id": path, "caption": "x"}]} for name in merged.files}
    report = report_of(write_case(tmp_path, replace(merged, files=files)), "wavcaps", "train")
    assert (report.state, report.coverage.broken) == ("found", 4)


def test_a_flaw_is_listed_and_makes_it_unsound(tmp_path):
    case = case_of("msrvtt_caption", "val")
    name = "msrvtt/annotations/cap_val.json"
    files = {name: [*case.files[name], {"video": "video0.mp4", "caption": ""}]}
    report = report_of(write_case(tmp_path, replace(case, files=files)), "msrvtt_caption", "val")
    assert (str(report.coverage), report.is_sound) == ("2 of 2", False)
    assert report.problems[0].startswith(f"flawed: {tmp_path / name}, row 4: the field 'caption'")


def test_a_broken_row_of_several_captions_to_learn_counts_as_many(tmp_path):
    case = case_of("clotho_v1", "development")
    name = "clotho_v1/clotho_captions_development.csv"
    files = {name: case.files[name].replace(",A door 3.", "")}
    report = report_of(write_case(tmp_path, replace(case, files=files)), "clotho_v1", "development")
    assert (str(report.coverage), len(report.problems)) == ("5 of 10", 1)


def test_a_blank_caption_of_several_to_learn_costs_its_own_sample_alone(tmp_path):
    case = case_of("clotho_v1", "development")
    name = "clotho_v1/clotho_captions_development.csv"
    files = {name: case.files[name].replace("A door 3.", " ")}
    report = report_of(write_case(tmp_path, replace(case, files=files)), "clotho_v1", "development")
    assert (str(report.coverage), report.coverage.broken) == ("9 of 10", 1)
    assert "row 2: the field 'caption_4' must hold text, got ''; correct" in report.problems[0]


def test_missing_media_are_counted_and_do_not_make_it_unsound(tmp_path):
    case = case_of("msvd_qa", "test")
    root = write_case(tmp_path, replace(case, media=[]))
    report = report_of(root, "msvd_qa", "test")
    assert (str(report.coverage), report.is_sound) == ("0 of 1", True)
    assert report.problems[0].startswith(
        f"missing: {root}/msvd/annotations/qa_test.json, row 1: no"
    )


def test_problems_are_listed_up_to_a_limit_of_each_kind(tmp_path):
    rows = [{"video": f"{i}.avi", "question": "x?", "answer": "y", "question_id": i % 30}
            for i in range(60)]  # fmt: skip
    root = write(tmp_path, "msvd/annotations/qa_test.json", rows).parents[2]
    report = report_of(root, "msvd_qa", "test")
    assert (report.coverage.missing, report.coverage.broken) == (30, 30)
    assert len(report.problems) == 40
    assert len(report_of(root, "msvd_qa", "test", listed=None).problems) == 60


def test_corrupt_media_are_told_once_a_sample(tmp_path):
    case = case_of("sun_rgbd", "val")
    root = write_case(tmp_path, case)
    for path in case.media[:2]:
        (root / path).write_bytes(b"")
    report = report_of(root, "sun_rgbd", "val")
    assert (report.corrupt, str(report.coverage), report.is_sound) == (1, "2 of 2", False)
    assert report.problems == [
        f"corrupt: {root}/SUNRGBD/SUN-RGBD_val.json, row 1: {case.media[1]} must be a .png file, "
        "got an empty file (0 bytes); download it again"
    ]


def found(root, ending, content):
    name = f"a{ending}"
    kinds = {".wav": "sound", ".npz": "points"}
    return FoundMedium(kinds.get(ending, "picture"), name, write(root, name, content))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".wav", ".flac", ".npz", ".mp4", ".avi"])
def test_sound_files_pass_and_others_are_named(ending, tmp_path):
    assert check_medium(found(tmp_path, ending, medium(ending)), decode=False) == ""
    page = found(tmp_path / "other", ending, b"<!DOCTYPE html><html>")
    assert check_medium(page, decode=False) == (
        f"a{ending} must be a {ending} file, got a web page (21 bytes); download it again"
    )
    empty = found(tmp_path / "empty", ending, b"")
    assert "got an empty file (0 bytes)" in check_medium(empty, decode=False)


@pytest.mark.parametrize("ending", [".png", ".wav", ".npz"])
def test_truncated_files_are_told_from_their_ends(ending, tmp_path):
    broken = found(tmp_path, ending, medium(ending)[:-20])
    assert check_medium(broken, decode=False) == (
        f"a{ending} must be a whole {ending} file, got one that breaks off; copy it again"
    )


def test_an_ending_that_is_not_known_passes_unless_empty(tmp_path):
    assert check_medium(found(tmp_path, ".xyz", b"1"), decode=False) == ""
    assert "got an empty file" in check_medium(found(tmp_path / "b", ".xyz", b""), decode=False)


def test_decoding_finds_what_the_ends_do_not_tell(tmp_path):
    whole = found(tmp_path / "whole", ".jpg", medium(".jpg"))
    assert check_medium(whole, decode=True) == ""
    broken = found(tmp_path, ".jpg", medium(".jpg")[:-40])
    assert check_medium(broken, decode=False) == ""
    assert "a.jpg must be a whole picture" in check_medium(broken, decode=True)


def test_a_file_that_vanished(tmp_path):
    gone = FoundMedium("picture", "a.jpg", tmp_path / "a.jpg")
    assert check_medium(gone, decode=False).startswith("a.jpg must be readable, got No such file")


def test_a_directory_in_place_of_a_file(tmp_path):
    place = FoundMedium("picture", "a.jpg", tmp_path)
    assert check_medium(place, decode=False).startswith(
        "a.jpg must be readable, got Is a directory"
    )


def test_broken_clouds_are_told(tmp_path):
    case = case_of("modelnet40", "test")
    name = "modelnet40_normal_resampled/modelnet40_test_8192pts_fps.dat"
    data = clouds().replace(np.full(4, 2, np.float32).tobytes(), np.full(4, np.nan, "f4").tobytes())
    root = write_case(tmp_path, replace(case, files={**case.files, name: data}))
    report = report_of(root, "modelnet40", "test")
    assert (str(report.coverage), report.is_sound) == ("2 of 3", False)
    assert "bed_0516 must have finite coordinates in at least 99 %" in report.problems[0]
    coverage, _ = convert("modelnet40", root, tmp_path / "a.jsonl")
    assert coverage == report.coverage


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_is_whole(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    usable = Coverage(dataset="", split="", usable=651_576, left_out=123_456)
    numbers = {"corrupt": 651_575, "published": 651_574, "paper": 651_573, "files": []}
    reports = [
        SplitReport(dataset=name, split=split, state="found", coverage=usable, **numbers)
        for name, dataset in datasets().items()
        for split in dataset.splits
    ]
    damaged = usable.model_copy(update={"usable": 7, "broken": 1})
    reports += [SplitReport(dataset="gqa", split="x", state="damaged", coverage=damaged, **numbers)]
    show_reports(reports)
    header, *lines = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "data set samples corrupt left out published paper"
    for line, report in zip(lines, reports[:-1], strict=False):
        values = "651,576 of 651,576 651,575 123,456 651,574 651,573"
        assert line.split() == f"{report.dataset} {report.split} {values}".split()
        assert len(line) <= columns
    assert lines[-2].split() == ["gqa", "x", "damaged", "651,575", "123,456", "651,574", "651,573"]
    assert lines[-1] == "gqa x: damaged: 7 of 8 read before it was seen"
