import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.metrics.rouge import rouge_l
from tests.metrics.golden import captions


def score(prediction, *references):
    return rouge_l([prediction], [list(references)])[0, 0]


def test_same_as_the_usual_program():
    found = captions()
    scores = rouge_l(found["predictions"], found["references"])[:, 0]
    np.testing.assert_allclose(scores / 100, found["rouge_l"]["each"], atol=1e-6)
    assert scores.mean() / 100 == pytest.approx(found["rouge_l"]["score"], abs=1e-6)


def test_worked_by_hand():
    # "police the gunman" of "police kill the gunman": precision and recall 3 / 4.
    assert score("police ended the gunman", "police killed the gunman") == pytest.approx(75)
    # In another order only two words are left.
    assert score("the gunman ended police", "police killed the gunman") == pytest.approx(50)


def test_precision_and_recall_may_come_from_different_references():
    # Precision 2 / 2 from the first, recall 1 / 1 from the second.
    assert score("a cat", "a black cat", "cat") == pytest.approx(100)


def test_recall_weighs_more():
    beta = 1.2**2
    assert score("a cat", "a cat sat down") == pytest.approx(100 * (1 + beta) * 0.5 / (0.5 + beta))
    assert score("a cat sat down", "a cat") == pytest.approx(
        100 * (1 + beta) * 0.5 / (1 + beta / 2)
    )


def test_nothing_in_common():
    assert score("a cat", "two dogs", "") == score("", "a cat") == score(".", "") == 0.0
    assert score("a cat", "", "a cat") == pytest.approx(100)


WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_against_its_table(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    common = table[-1, -1]
    precision, recall = common / len(first), common / len(second)
    expected = common and 244 * precision * recall / (recall + 1.44 * precision)
    assert score(" ".join(first), " ".join(second)) == pytest.approx(expected)
