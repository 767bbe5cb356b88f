import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.metrics import METRICS
from pathweave.metrics.exact_match import exact_match


def score(predictions, references):
    return exact_match(predictions, references).mean()


def test_percent():
    predictions = ["A shirt.", "two", "red", "dog"]
    references = [["shirt"], ["2", "three"], ["blue", "green"], ["the dog"]]
    assert score(predictions, references) == 75.0


def test_the_metric_runs_this_function():
    assert METRICS["exact_match"].statistics is exact_match


def test_empty_predictions_are_wrong():
    assert score(["", "the", "?", " "], [["yes"], ["a"], [""], ["", " "]]) == 0.0


@pytest.mark.parametrize(
    "answer", ["A", "the", "an", "+", "-", "<", "?", ".", "...", "the a", "!?"]
)
def test_what_normalises_to_nothing_equals_itself_alone(answer):
    assert score([answer, answer.upper(), f" {answer}\n"], [[answer]] * 3) == 100.0
    others = [other for other in ("A", "the", "+", "-", "<", "?", "B", "") if other != answer]
    assert score([answer], [others]) == 0.0


def test_a_letter_is_told_from_an_article_by_nothing_else():
    assert score(["A.", "(A)", "a"], [["A"]] * 3) == 100.0
    assert score(["A.", "An"], [["B"], ["A"]]) == 0.0


@given(st.text(min_size=1, max_size=8).filter(str.strip))
def test_every_answer_equals_itself(answer):
    assert score([answer], [["something else", answer]]) == 100.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("CAF\u00c9", "cafe\u0301"),
        ("the man\u2019s hat", "man's hat"),
        ("don\u2019t", "dont"),
        ("\u2018red\u2019", "'red'"),
        ("\u201cred\u201d", "red"),
        ("t\u2010shirt", "t-shirt"),
        ("\u22125", "-5"),
        ("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
    ],
)
def test_two_ways_to_write_the_same_characters_are_equal(answer, reference):
    assert score([answer, reference], [[reference], [answer]]) == 100.0
