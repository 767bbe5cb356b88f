"""Transfer and forgetting of a cell, by hand; and tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.compare.quantities import MEAN, Key, Kind, Quantity, kind_of, quantities
from pathweave.compare.tables import ReportTable, latex, markdown
from pathweave.evaluate.scores import ScoreMatrix

NAMES = ["see", "hear", "feel"]
METRICS = {(name, d): m for name in NAMES for d, m in (("qa", "exact_match"), ("say", "cider_d"))}


def of_cell(scores, whole=None):
    """Every quantity of a cell; each score is an array of draws."""
    matrix = ScoreMatrix(NAMES)
    for key, value in scores.items():
        matrix.add(*key, np.atleast_1d(np.array(value, float)))
    wholes = {key: np.atleast_1d(np.array(value, float)) for key, value in (whole or {}).items()}
    return quantities(matrix, wholes, METRICS)


BY_HAND = {
    # After seeing, hearing, feeling; questions in percent, captions in points.
    **{(0, "see", "qa"): 80.0, (0, "see", "say"): 200.0},
    **{(1, "see", "qa"): 50.0, (1, "see", "say"): 120.0},
    **{(1, "hear", "qa"): 60.0, (1, "hear", "say"): 100.0},
    **{(2, "see", "qa"): 60.0, (2, "see", "say"): 90.0},
    **{(2, "hear", "qa"): 45.0, (2, "hear", "say"): 110.0},
    **{(2, "feel", "qa"): 70.0, (2, "feel", "say"): 300.0},
}


@pytest.mark.parametrize(
    ("quantity", "modality", "kind", "expected"),
    [
        (Quantity.T, "see", Kind.ACCURACY, 80.0),
        (Quantity.T, "hear", Kind.ACCURACY, 60.0),
        (Quantity.T, "hear", Kind.CAPTIONS, 100.0),
        (Quantity.T, "hear", Kind.MIXED, 80.0),
        (Quantity.T, MEAN, Kind.ACCURACY, 65.0),  # of hear and feel: see is the base
        (Quantity.T, MEAN, Kind.MIXED, (80.0 + 185.0) / 2),
        (Quantity.F, "hear", Kind.ACCURACY, 30.0),
        (Quantity.F, "hear", Kind.MIXED, (30.0 + 80.0) / 2),
        (Quantity.F, "feel", Kind.ACCURACY, (20.0 + 15.0) / 2),
        (Quantity.F, "feel", Kind.CAPTIONS, (110.0 - 10.0) / 2),  # hear has gained 10
        (Quantity.F, MEAN, Kind.ACCURACY, (30.0 + 17.5) / 2),
        (Quantity.LOST, "see", Kind.ACCURACY, 20.0),
        (Quantity.LOST, "hear", Kind.CAPTIONS, -10.0),
        (Quantity.LOST, MEAN, Kind.ACCURACY, 17.5),
        (Quantity.FINAL, "see", Kind.CAPTIONS, 90.0),
        (Quantity.FINAL, MEAN, Kind.ACCURACY, (60.0 + 45.0 + 70.0) / 3),
    ],
)
def test_by_hand(quantity, modality, kind, expected):
    assert of_cell(BY_HAND)[Key(quantity, modality, kind)] == pytest.approx([expected])


def test_what_is_not_known_is_left_out():
    scores = {key: value for key, value in BY_HAND.items() if key[0] < 2}
    found = of_cell(scores)
    assert Key(Quantity.T, "hear", Kind.MIXED) in found
    for key in (
        Key(Quantity.T, "feel", Kind.MIXED),
        Key(Quantity.T, MEAN, Kind.MIXED),  # of two modalities one is not there
        Key(Quantity.F, "feel", Kind.MIXED),
        Key(Quantity.FINAL, MEAN, Kind.MIXED),
        Key(Quantity.WHOLE, MEAN, Kind.MIXED),
    ):
        assert key not in found
    assert Key(Quantity.WHOLE, "see", Kind.ACCURACY) in of_cell(BY_HAND, {("see", "qa"): 77.0})
    assert Key(Quantity.WHOLE, "see", Kind.MIXED) not in of_cell(BY_HAND, {("see", "qa"): 77.0})


def test_modalities_learnt_at_once_are_scored_when_all_are_learnt():
    scores = {key: value for key, value in BY_HAND.items() if key[0] != 1}
    found = of_cell(scores)
    assert found[Key(Quantity.T, "hear", Kind.ACCURACY)] == [45.0]
    assert found[Key(Quantity.T, MEAN, Kind.ACCURACY)] == [57.5]
    assert found[Key(Quantity.LOST, "see", Kind.ACCURACY)] == [20.0]
    assert Key(Quantity.F, "feel", Kind.ACCURACY) not in found


def test_metrics_are_of_two_kinds():
    accuracies = {"exact_match", "vqa_accuracy", "vqa_accuracy_released", "ranking", "word_match"}
    captions = {"cider", "cider_d", "bleu_1", "bleu_4", "rouge_l", "meteor"}
    assert {kind_of(metric) for metric in accuracies} == {Kind.ACCURACY}
    assert {kind_of(metric) for metric in captions} == {Kind.CAPTIONS}


def test_every_draw_is_a_cell_of_its_own():
    other = {key: 300.0 - value for key, value in BY_HAND.items()}
    both = of_cell({key: [value, other[key]] for key, value in BY_HAND.items()})
    for draw, scores in enumerate((BY_HAND, other)):
        alone = {key: value[0] for key, value in of_cell(scores).items()}
        assert alone.keys() == both.keys()
        assert {key: value[draw] for key, value in both.items()} == pytest.approx(alone)


# Tables

WORDS = st.text("abcxyz019 .±%_", max_size=14)


@given(st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_markdown_fits_and_loses_no_cell(num_columns, data):
    header = [f"column {i}" for i in range(num_columns + 1)]
    rows = data.draw(
        st.lists(st.lists(WORDS, min_size=num_columns + 1, max_size=num_columns + 1), max_size=4)
    )
    table = ReportTable("Title", header, rows)
    lines = markdown(table, width=60).splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert all(len(line) <= 60 for line in grid)
    parts, seen = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            parts.append([cell.strip() for cell in line.strip("|").split("|")])
        elif parts:
            first, _, *others = parts
            assert [row[0] for row in others] == [row[0].strip() for row in rows]
            seen += list(zip(first[1:], *[row[1:] for row in others], strict=True))
            parts = []
    expected = zip(header[1:], *[[c.strip() for c in row[1:]] for row in rows], strict=True)
    assert seen == list(expected)


def test_latex_is_of_booktabs_and_escaped():
    text = latex([ReportTable("Share & size", ["a_b", "50 %"], [["x_y", "1.0 ±0.2"]], "n: #1")])
    assert r"\caption{Share \& size}" in text
    assert r"a\_b & 50 \% \\" in text
    assert "x\\_y & 1.0 $\\pm$0.2 \\\\\n\\bottomrule" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"\end{tabular}\par\footnotesize n: \#1" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == 1
