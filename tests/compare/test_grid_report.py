"""The report of hand-made results, worked out by hand."""

import csv
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathweave.compare.analysis import load_analysis
from pathweave.compare.grid_report import marks, write_report
from pathweave.compare.plots import _apart
from pathweave.compare.quantities import MEAN, Key, Kind, Quantity
from pathweave.errors import PathWeaveError, RunError
from tests.compare.grids import write_about, write_cell
from tests.whole_runs import command

RIGHT, WRONG = 100.0, 0.0
BEGIN, END = marks("hand-made")


def share(right: int, of: int = 10) -> list[float]:
    """What each sample got where so many of the first were answered rightly."""
    return [RIGHT] * right + [WRONG] * (of - right)


def answers(before: int, after: int, new: int) -> dict[tuple[str, str], list[float]]:
    """The answers of a cell, in tenths right: to the first modality before and after, and to the
    second."""
    return {
        ("see", "see"): share(before),
        ("hear", "see"): share(after),
        ("hear", "hear"): share(new),
    }


@pytest.fixture
def directory(tmp_path):
    """Two methods and two seeds: ours forgets nothing, theirs forgets and learns more."""
    write_about(tmp_path)
    gates = {"hear": {"see": 0.25, "hear": 0.75}}
    for seed, new in enumerate((6, 8)):
        write_cell(tmp_path, answers(9, 9, new), seed=seed, gate_usage=gates)
        lost = answers(9, 4 - seed, new + 1)
        write_cell(tmp_path, lost, seed=seed, method="theirs")
    return tmp_path


def test_values_and_intervals_are_those_worked_out_by_hand(directory):
    analysis = load_analysis(directory)
    ours, theirs = (analysis.estimates[method, "main"] for method in ("ours", "theirs"))
    transfer = ours[Key(Quantity.T, "hear", Kind.ACCURACY)]
    assert (transfer.value, transfer.per_seed) == (70.0, (60.0, 80.0))
    # Standard deviation sqrt(200), two seeds: 12.706 * sqrt(200) / sqrt(2).
    assert transfer.seeds == pytest.approx(127.06, abs=0.01)
    # The mean of the two seeds of a sample is 1 six times, 1/2 twice, 0 twice; ten objects drawn.
    assert transfer.num_objects == 10
    assert transfer.low == pytest.approx(45.0, abs=6)
    assert transfer.high == pytest.approx(95.0, abs=6)
    assert ours[Key(Quantity.T, MEAN, Kind.ACCURACY)].value == 70.0
    assert ours[Key(Quantity.F, MEAN, Kind.ACCURACY)].per_seed == (0.0, 0.0)
    assert theirs[Key(Quantity.F, "hear", Kind.ACCURACY)].per_seed == (50.0, 60.0)
    assert theirs[Key(Quantity.LOST, "see", Kind.ACCURACY)].value == 55.0
    assert theirs[Key(Quantity.FINAL, MEAN, Kind.ACCURACY)].per_seed == (55.0, 60.0)
    assert theirs[Key(Quantity.FINAL, MEAN, Kind.MIXED)].value == 57.5
    assert Key(Quantity.WHOLE, MEAN, Kind.ACCURACY) not in ours


def test_differences_are_paired_by_seed_and_sample(directory):
    found = load_analysis(directory).differences
    assert found.keys() == {("theirs", "main")}
    more = found["theirs", "main"][Key(Quantity.T, MEAN, Kind.ACCURACY)]
    # 10 points in either seed, though the seeds are 20 apart; on one sample of ten.
    assert more.per_seed == pytest.approx((10.0, 10.0))
    assert more.seeds == pytest.approx(0.0, abs=1e-9)
    assert (more.low, more.high) == pytest.approx((0.0, 30.0), abs=6)
    assert more.verdict == "no"
    worse = found["theirs", "main"][Key(Quantity.F, MEAN, Kind.ACCURACY)]
    assert worse.value == pytest.approx(55.0)
    # Seeds alone: 12.706 * 5. Of ten objects five lose in both seeds and one in one: a variance of
    # 10000 * (5 + 1/4 - 5.5**2 / 10) / 10 / 10 = 222.5, and with 9 degrees of freedom 2.262 times
    # its root, 33.7. The root of the sum of both squares is 71.9.
    assert worse.seeds == pytest.approx(63.5, abs=0.1)
    assert worse.both == pytest.approx(71.9, abs=3)
    assert worse.verdict == "no"


def test_objects_and_not_samples_are_drawn(tmp_path):
    """Ten views of two things are two things: the interval is as wide as can be."""
    write_about(tmp_path, methods=["ours"], seeds=[0])
    things = {"hear": [1] * 5 + [2] * 5}
    write_cell(tmp_path, answers(9, 9, 5), objects=things)
    found = load_analysis(tmp_path).estimates["ours", "main"][
        Key(Quantity.T, "hear", Kind.ACCURACY)
    ]
    assert (found.low, found.high, found.num_objects) == (0.0, 100.0, 2)
    assert found.seeds is None


def test_objects_are_counted_where_they_count(tmp_path):
    """Those of a kind of score, and for F those of the modalities that can lose."""
    write_about(tmp_path, methods=["ours"], seeds=[0])
    captions = {place: [100.0] * 4 for place in answers(1, 1, 1)}
    write_cell(tmp_path, answers(9, 9, 5), captions=captions, objects={"hear": [1, 1, 2, 2, 3] * 2})
    found = load_analysis(tmp_path).estimates["ours", "main"]
    assert found[Key(Quantity.T, "hear", Kind.ACCURACY)].num_objects == 3
    assert found[Key(Quantity.T, "hear", Kind.CAPTIONS)].num_objects == 2
    assert found[Key(Quantity.T, MEAN, Kind.ACCURACY)].num_objects == 3
    assert found[Key(Quantity.F, "hear", Kind.ACCURACY)].num_objects == 10
    assert found[Key(Quantity.F, MEAN, Kind.CAPTIONS)].num_objects == 4
    assert found[Key(Quantity.FINAL, MEAN, Kind.ACCURACY)].num_objects == 13


def test_whole_sets_have_intervals_of_their_own(tmp_path):
    write_about(tmp_path, methods=["ours"], seeds=[0])
    write_cell(tmp_path, answers(9, 9, 6), {"see": share(18, 20), "hear": share(10, 20)})
    found = load_analysis(tmp_path).estimates["ours", "main"]
    whole = found[Key(Quantity.WHOLE, "hear", Kind.ACCURACY)]
    assert (whole.value, whole.num_objects) == (50.0, 20)
    assert found[Key(Quantity.WHOLE, MEAN, Kind.ACCURACY)].value == 70.0
    assert found[Key(Quantity.WHOLE, MEAN, Kind.ACCURACY)].num_objects == 40


def read_csv(file) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_everything_is_written(directory, tmp_path, capsys):
    out = tmp_path / "docs"
    assert command("compare", "--report", directory, "--out", out, "--json") == 0
    written = {name.removeprefix(f"{out}/") for name in json.loads(capsys.readouterr().out)}
    pictures = {"means", "differences", "forgetting", "matrices_accuracy", "gates"}
    assert written == {
        "mcl.md",
        *(f"results/hand_made{end}" for end in (".csv", ".tex", "_scores.csv", "_details.md")),
        *(f"results/hand_made_{name}.png" for name in pictures),
    }
    for name in pictures:
        picture = Image.open(out / f"results/hand_made_{name}.png")
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 8
    text = (out / "mcl.md").read_text(encoding="utf-8")
    assert "the seeds that a method has" not in text
    assert "another machine" not in text
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("|"))
    assert "| ours   |     2 | 70.0 ±127/" in text
    assert "| theirs | +10.0 |" in text
    assert "| ours, hear   | 0.25 | 0.75 |" in text
    assert "| ours   |             150 | 15.0 % |          1.0 |     2.0 |    2.50 |" in text
    assert "hand-made: 4 of 4 cells, seeds 0, 1" in text
    assert "answered the test samples once" in text
    rows = read_csv(out / "results/hand_made.csv")
    [row] = [
        r
        for r in rows
        if (r["method"], r["quantity"], r["modality"], r["kind"])
        == ("theirs", "T", "hear", "accuracy")
    ]
    assert (row["value"], row["num_seeds"], row["minus_reference"]) == ("80", "2", "10")
    assert (row["verdict"], row["num_objects"]) == ("no", "10")
    scores = read_csv(out / "results/hand_made_scores.csv")
    assert len(scores) == 4 * 3
    assert {"method": "theirs", "seed": "1", "after": "hear", "modality": "see"}.items() <= scores[
        -2
    ].items()
    assert scores[-2]["score"] == "30"
    more = (out / "results/hand_made_details.md").read_text(encoding="utf-8")
    assert "| see qa   | 90.0 | 35.0 |       |" in more
    assert "T of each modality" in more
    assert "T of each modality" not in text
    latex = (out / "results/hand_made.tex").read_text(encoding="utf-8")
    assert latex.count(r"\bottomrule") == (text + more.split("## Score")[0]).count("\n**")


def test_the_text_around_the_tables_is_kept_and_the_means_are_shown(directory, tmp_path, capsys):
    out = tmp_path / "docs"
    out.mkdir()
    document = out / "mcl.md"
    document.write_text(
        f"# Ours\n\nBefore.\n\n{BEGIN}\nearlier\n{END}\n\nAfter.\n", encoding="utf-8"
    )
    write_report(directory, out)
    first = document.read_text(encoding="utf-8")
    before, between, after = re.split(f"{BEGIN}|{END}", first)
    assert (before, after) == ("# Ours\n\nBefore.\n\n", "\n\nAfter.\n")
    assert between.startswith("\nhand-made:")
    assert "earlier\n" not in between
    document.write_text("# Ours\n", encoding="utf-8")
    assert command("mcl", "--report", directory, "--out", out) == 0
    # At the end of a document without marks, and the same tables again.
    text = document.read_text(encoding="utf-8")
    assert text == f"# Ours\n\n# hand-made\n\n{BEGIN}{between}{END}\n"
    shown = capsys.readouterr().out
    assert "| ours   |     2 | 70.0 ±127/" in shown
    assert f"wrote {document}" in shown


@pytest.mark.parametrize("text", [f"# Ours\n{BEGIN}\n", f"# Ours\n{END}\n", f"{END}\n{BEGIN}\n"])
def test_a_document_with_one_mark_is_refused_and_kept(directory, tmp_path, text):
    document = tmp_path / "docs" / "mcl.md"
    document.parent.mkdir()
    document.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"mcl\.md must have a line <!-- hand_made: begin -->"):
        write_report(directory, document.parent)
    assert document.read_text(encoding="utf-8") == text


def test_one_seed_has_no_interval_over_seeds_and_says_so(tmp_path):
    write_about(tmp_path, methods=["ours", "theirs"], seeds=[0])
    write_cell(tmp_path, answers(9, 9, 2))
    write_cell(tmp_path, answers(9, 1, 9), method="theirs")
    write_report(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "mcl.md").read_text(encoding="utf-8")
    assert "20.0 ±?/" in text
    assert "?: not known, as with one seed" in text
    differences = [line for line in text.splitlines() if line.startswith("| theirs | +70.0")]
    [difference] = differences
    assert difference.count("1 seed") == 2


def test_orders_and_captions_have_tables_of_their_own(tmp_path):
    orders = {"main": ["see", "hear"], "other": ["hear", "see"]}
    write_about(tmp_path, methods=["ours"], orders=orders, seeds=[0, 1], num_cells=4)
    captions = {place: [200.0, 300.0, 100.0] for place in answers(1, 1, 1)}
    turned = {("hear", "hear"): share(8), ("see", "hear"): share(8), ("see", "see"): share(3)}
    for seed in (0, 1):
        write_cell(tmp_path, answers(9, 9, 6), seed=seed, captions=captions)
        other = {place: [50.0, 60.0, 70.0] for place in turned}
        write_cell(
            tmp_path, turned, seed=seed, order="other", curriculum=("hear", "see"), captions=other
        )
    write_report(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "mcl.md").read_text(encoding="utf-8")
    assert "| ours, main    | 90.0 ±0.0 | 60.0 ±0.0 | 60.0 ±0.0 |      0 |" in text
    assert "| ours, other   | 30.0 ±0.0 | 80.0 ±0.0 | 30.0 ±0.0 |      0 |" in text
    assert "| ours, main    | 200.0 ±0.0 | 200.0 ±0.0 | 200.0 ±0.0 |      0 |" in text
    more = (tmp_path / "report" / "results" / "hand_made_details.md").read_text(encoding="utf-8")
    assert "Orders, T of each modality: accuracy and captions mixed, as in the paper" in more
    assert (tmp_path / "report/results/hand_made_matrices_captions.png").exists()
    assert not (tmp_path / "report/results/hand_made_differences.png").exists()


def test_a_grid_that_has_just_begun_is_reported(tmp_path):
    write_about(tmp_path, num_cells=4)
    write_cell(tmp_path, answers(9, 9, 6), method="theirs")
    write_report(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "mcl.md").read_text(encoding="utf-8")
    assert "1 of 4 cells, seed 0, " in text
    assert "Without a result yet: ours, seed 1." in text


def test_means_over_different_seeds_are_said_to_be(tmp_path):
    write_about(tmp_path)
    for seed in (0, 1):
        write_cell(tmp_path, answers(9, 9, 6), seed=seed)
    write_cell(tmp_path, answers(9, 1, 9), method="theirs")
    write_report(tmp_path, tmp_path / "report")
    text = " ".join((tmp_path / "report" / "mcl.md").read_text(encoding="utf-8").split())
    assert "the seeds that a method has (0, 1: ours; 0: theirs)" in text


def test_methods_that_started_from_another_first_stage_are_named(directory, tmp_path):
    write_cell(directory, answers(8, 4, 9), method="theirs", seed=1)
    assert load_analysis(directory).other_bases() == {1: ["theirs"]}
    write_report(directory, tmp_path / "report")
    text = " ".join((tmp_path / "report" / "mcl.md").read_text(encoding="utf-8").split())
    assert "Started from another first stage than ours" in text
    assert "(seed 1: theirs)" in text


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 20))
@settings(max_examples=50, deadline=None)
def test_names_in_a_picture_are_moved_apart_and_no_further(heights, step):
    heights = sorted(heights)
    moved = _apart(heights, step)
    assert all(b - a >= step - 1e-6 for a, b in pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-6)
    if all(b - a > step for a, b in pairwise(heights)):
        assert moved == pytest.approx(heights)


# What is refused


def test_a_directory_without_results_is_refused(tmp_path, capsys):
    assert command("mcl", "--report", tmp_path) == 2
    assert "grid.json must describe a grid, got" in capsys.readouterr().err
    write_about(tmp_path)
    assert command("mcl", "--report", tmp_path) == 2
    assert "results must hold the result of at least one cell, got none" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_result_is_refused(directory, content):
    file = directory / "results" / "ours-main-seed1.json"
    file.write_bytes(content)
    with pytest.raises(
        RunError, match=r"ours-main-seed1\.json must hold the result of a cell, got"
    ):
        load_analysis(directory)


def test_a_result_without_its_samples_is_refused(directory):
    samples = directory / "results" / "ours-main-seed1.safetensors"
    whole = samples.read_bytes()
    samples.write_bytes(whole[:-1])
    message = r"ours-main-seed1\.safetensors must be the file that was written with .*copy both"
    with pytest.raises(RunError, match=message):
        load_analysis(directory)
    samples.unlink()
    with pytest.raises(RunError, match=f"{message}|got No such file"):
        load_analysis(directory)


def test_a_score_that_its_samples_do_not_give_is_refused(directory):
    file = directory / "results" / "ours-main-seed1.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["results"]["scores"]["scores"][0]["score"] = 91.0
    file.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(RunError, match=r"must hold the scores that its samples give, got 91\.0"):
        load_analysis(directory).estimates  # noqa: B018 (computed when asked for)


def test_cells_of_different_samples_are_refused(directory):
    longer = {place: [*got, RIGHT] for place, got in answers(9, 9, 8).items()}
    write_cell(directory, longer, seed=1)
    with pytest.raises(RunError, match=r"scored on the same samples of see/qa \(stages\)"):
        load_analysis(directory)


def test_a_cell_that_the_grid_does_not_know_is_refused(directory):
    write_cell(directory, answers(9, 9, 8), method="nobody")
    with pytest.raises(
        RunError, match=r"must be of a method and an order of grid\.json, got 'nobody'"
    ):
        load_analysis(directory)


@pytest.mark.parametrize("seed", [1, 17])
def test_a_second_result_of_a_cell_and_a_seed_of_no_grid_are_refused(directory, seed):
    """Counted as another seed, a copy would make an interval narrower."""
    results = directory / "results"
    tree = json.loads((results / "ours-main-seed1.json").read_text(encoding="utf-8"))
    (results / "copy.json").write_text(json.dumps(tree | {"seed": seed}), encoding="utf-8")
    samples = (results / "ours-main-seed1.safetensors").read_bytes()
    (results / "copy.safetensors").write_bytes(samples)
    message = r"must be the only result of its method and order with its seed, one of grid\.json's"
    with pytest.raises(RunError, match=message):
        load_analysis(directory)


@pytest.mark.parametrize("metric", ["cider_d", "nonsense"])
def test_results_of_different_metrics_are_refused(directory, metric):
    file = directory / "results" / "theirs-main-seed1.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["results"]["datasets"]["hear"][0]["metric"] = metric
    file.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(RunError, match="must be scored by the same known metric on hear/qa"):
        load_analysis(directory)


def test_a_document_that_is_no_text_is_refused(directory, tmp_path):
    document = tmp_path / "docs" / "mcl.md"
    document.parent.mkdir()
    document.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match=r"mcl\.md must be a text file in UTF-8, got"):
        write_report(directory, document.parent)
    document.unlink()
    document.mkdir()
    with pytest.raises(RunError, match=r"mcl\.md must be a text file in UTF-8, got"):
        write_report(directory, document.parent)


def test_a_missing_library_names_the_extra(directory, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(PathWeaveError, match=r"'pathweave\[report\]'"):
        write_report(directory, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
