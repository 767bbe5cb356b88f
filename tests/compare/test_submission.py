"""Submissions of the grid whose results are stored with the documents."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.compare.submission import Submission, read_submission
from pathweave.errors import RunError
from scripts.leaderboard import page, read_all
from tests.whole_runs import command

ROOT = Path(__file__).parents[2]
GRID, STORED = ROOT / "recipes" / "mcl_grid.yaml", ROOT / "docs" / "results" / "mcl_grid"
KEPT = ROOT / "docs" / "leaderboard"
FILE = "mcl_mini_grid.json"
METHODS = ("pathweave", "sequential", "joint")


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """The file of some methods; to be read only."""
    directory = tmp_path_factory.mktemp("submitted")
    only = [word for name in METHODS for word in ("--only", name)]
    words = ("compare", GRID, "--out", STORED, "--submit", directory)
    assert command(*words, *only) == 0
    return directory / FILE


def entries(file):
    return {entry.method: entry for entry in read_submission(file).entries}


def test_what_is_submitted_is_what_the_report_shows(submitted):
    found = entries(submitted)
    assert tuple(found) == METHODS
    ours = found["pathweave"].means
    assert [round(ours[f"{q}/accuracy"].value, 1) for q in ("T", "F", "final")] == [58.4, 0.0, 62.8]
    assert round(ours["T/accuracy"].seeds, 1) == 4.7
    assert round((ours["T/accuracy"].high - ours["T/accuracy"].low) / 2, 1) == 6.2
    assert len(read_submission(submitted).data) == 5 * 2 * 3


def test_a_claim_of_no_forgetting_is_proved_by_every_sample(submitted):
    found = entries(submitted)
    # Ten comparisons of a modality after a later stage, each with two test sets and three seeds.
    assert found["pathweave"].forgets_nothing
    assert tuple(found["pathweave"].proof.model_dump().values()) == (60, 60)
    assert not found["sequential"].forgets_nothing
    assert found["sequential"].proof.identical < 60
    assert "F/accuracy" not in found["joint"].means  # it learns all at once
    assert not found["joint"].forgets_nothing


def change(tree, path, value):
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value(tree[path[-1]])


def rehashed(tree):
    made = Submission.model_validate(tree)
    return made.model_copy(update={"content_hash": made.hashed()})


def one_method(submitted):
    """A file that says as much of one method alone, which is sound and quicker to check."""
    tree = json.loads(submitted.read_text(encoding="utf-8"))
    tree["entries"] = tree["entries"][:1]
    return tree


def test_a_file_of_one_method_is_sound(submitted):
    assert not list(rehashed(one_method(submitted)).problems())


PLACES = [
    *(("means", f"T/{kind}", "per_seed", 1) for kind in ("accuracy", "captions")),
    *(("means", "final/accuracy", field) for field in ("value", "seeds")),
    *(("proof", field) for field in ("compared", "identical")),
]


@settings(max_examples=25)
@given(st.sampled_from(PLACES), st.sampled_from([-3, -1, 1, 2]))
def test_a_number_that_does_not_follow_from_the_others_is_seen(submitted, place, more):
    tree = one_method(submitted)
    change(tree["entries"][0], place, lambda number: number + more)
    assert list(rehashed(tree).problems())


@settings(max_examples=25)
@given(st.data())
def test_a_score_that_was_changed_is_seen(submitted, data):
    tree = one_method(submitted)
    scores = tree["entries"][0]["cells"][data.draw(st.integers(0, 2))]["scores"]
    scores[data.draw(st.sampled_from(sorted(scores)))] += data.draw(st.sampled_from([-1, 1e-6]))
    assert list(rehashed(tree).problems())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("entries", 1, "forgets_nothing"), lambda _: True),
        (("entries", 0, "cells"), lambda cells: cells[:2]),
        (("entries", 0, "cells", 0, "scores"), lambda scores: dict(list(scores.items())[:9])),
        (("entries",), lambda _: []),
        (("curriculum",), lambda names: names[::-1]),
        (("metrics",), lambda metrics: {**metrics, "smell/qa": "exact_match"}),
    ],
)
def test_a_claim_that_does_not_hold_is_seen(submitted, path, value):
    tree = json.loads(submitted.read_text(encoding="utf-8"))
    change(tree, path, value)
    assert list(rehashed(tree).problems())


def test_a_file_that_was_changed_is_refused_with_the_reason(submitted, tmp_path):
    text = submitted.read_text(encoding="utf-8")
    for name, written, said in (
        (FILE, text.replace("2.13.0", "2.99.0"), "content_hash must be that of the file"),
        (FILE, text[:-9], "must be a submission, got"),
        (FILE, "[" * 9999, "must be a submission, got"),
        ("other.json", text, "must be called mcl_mini_grid.json, got other.json"),
    ):
        (tmp_path / name).write_text(written, encoding="utf-8")
        with pytest.raises(RunError, match=said):
            read_submission(tmp_path / name)


def test_a_grid_that_is_not_whole_is_refused(tmp_path, capsys):
    out = tmp_path / "grid"
    shutil.copytree(STORED, out)
    (out / "results" / "pathweave-main-seed1.json").unlink()
    words = ("compare", GRID, "--out", out, "--only", "pathweave", "--submit", tmp_path / "all")
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert (
        "must have a result to be submitted, got none of pathweave-main-seed1 (1 missing)" in said
    )
    assert not (tmp_path / "all").exists()


def test_results_of_another_recipe_are_refused(tmp_path, capsys):
    text = GRID.read_text(encoding="utf-8").replace("recipe: ", f"recipe: {GRID.parent}/")
    text = text.replace("\nset:", "\nset:\n  training.weight_decay: 0.01")
    (tmp_path / "grid.yaml").write_text(text, encoding="utf-8")
    words = ("--out", STORED, "--only", "pathweave", "--submit", tmp_path / "all")
    assert command("compare", tmp_path / "grid.yaml", *words) == 2
    assert "must be of the grid's recipe" in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_a_page_shows_all_that_hold_and_names_the_others(submitted, tmp_path):
    shutil.copy(submitted, tmp_path)
    tree = json.loads(submitted.read_text(encoding="utf-8")) | {"name": "<b>theirs</b>"}
    theirs = rehashed(tree).model_dump_json()
    (tmp_path / "b_theirs_b.json").write_text(theirs, encoding="utf-8")
    (tmp_path / "broken.json").write_text("{}", encoding="utf-8")
    found, refused = read_all(tmp_path)
    assert [each.name for each in found] == ["<b>theirs</b>", "MCL-mini grid"]
    assert len(refused) == 1
    text = page(found, refused)
    assert text.count("<table>") == 1  # the same test samples: one table
    assert text.count("<td>pathweave</td>") == 2
    assert text.count('class="good">0, proved') == 1 + 2 * 2
    assert "&lt;b&gt;theirs&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "broken.json must be a submission" in text
    assert not any(word in text for word in ("http", "src=", "<script", "@import", "url("))


def test_others_test_samples_have_a_table_of_their_own(submitted):
    tree = json.loads(submitted.read_text(encoding="utf-8"))
    tree["data"]["image/test/qa"] = "0" * 64
    assert page([read_submission(submitted), rehashed(tree)], []).count("<table>") == 2


def test_the_page_in_the_documents_is_that_of_the_files_beside_it():
    found, refused = read_all(KEPT)
    assert refused == []
    assert page(found, []) == (KEPT / "index.html").read_text(encoding="utf-8")
