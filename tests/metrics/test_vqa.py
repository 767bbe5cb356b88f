"""Expected numbers follow from the published rules, and agree with the published programs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.metrics.normalise import normalise
from pathweave.metrics.vqa import vqa_accuracy, vqa_accuracy_released


def official(prediction, *references):
    return vqa_accuracy([prediction], [list(references)])[0, 0]


def released(prediction, *references):
    return vqa_accuracy_released([prediction], [list(references)])[0, 0]


@pytest.mark.parametrize(
    ("num_agreeing", "expected"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)]
)
def test_ten_annotators(num_agreeing, expected):
    """With k of ten agreeing: (k min(1, (k-1)/3) + (10-k) min(1, k/3)) / 10."""
    references = ["yes"] * num_agreeing + [f"no {i}" for i in range(10 - num_agreeing)]
    assert official("yes", *references) == pytest.approx(expected)
    assert released("yes", *references) == pytest.approx(expected)


def test_few_annotators_cannot_reach_the_top():
    assert official("rain", "rain", "rain", "rain") == pytest.approx(200 / 3)
    assert official("rain", "rain") == 0.0


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        # The annotators differ, so both sides are normalised.
        ("Two dogs!", ["2 dogs", "the two dogs", "two dogs.", "cats"], 75),
        ("dont", ["don't", "dont", "yes", "no"], 50),
        # They agree, so nothing is: capital letters and articles count.
        ("the dog", ["dog"] * 4, 0),
        ("Dog", ["dog"] * 4, 0),
        (" dog\n", ["dog", "dog ", "dog\t", "dog"], 100),
    ],
)
def test_official_normalisation(prediction, references, expected):
    assert official(prediction, *references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        # Normalised references that keep an article, a number word or a capital cannot be met.
        ("Two dogs!", ["2 dogs", "the two dogs", "two dogs.", "cats"], 25),
        ("Yes", ["Yes", "Yes", "Yes", "no"], 0),
        # Only their punctuation is changed, and only if they differ.
        ("t-shirt", ["t-shirt"] * 4, 0),
        ("t-shirt", ["t-shirt"] * 4 + ["dress"], 100),
        # The answer is always normalised, which helps where all annotators agree.
        ("The dog.", ["dog"] * 4, 100),
    ],
)
def test_released_normalisation(prediction, references, expected):
    assert released(prediction, *references) == pytest.approx(expected)


ANSWERS = st.sampled_from(["yes", "Yes.", "two", "2", "a cat", "cat", "t-shirt"])


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=10))
def test_leave_one_out_against_subsets_written_out(prediction, references):
    answer, accepted = prediction, references
    if len(set(references)) > 1:
        answer, accepted = normalise(prediction), [normalise(r) for r in references]
    subsets = [accepted[:j] + accepted[j + 1 :] for j in range(len(accepted))]
    each = [min(1, subset.count(answer) / 3) for subset in subsets]
    assert official(prediction, *references) == pytest.approx(100 * sum(each) / len(each))
