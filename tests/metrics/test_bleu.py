import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.metrics.bleu import bleu, bleu_statistics
from tests.metrics.golden import captions


def score(predictions, references, max_n=4):
    return bleu(bleu_statistics(predictions, references).sum(0)[None], max_n)[0]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_same_as_the_usual_program(n):
    found = captions()
    expected = 100 * found[f"bleu_{n}"]["score"]
    assert score(found["predictions"], found["references"], n) == pytest.approx(expected, abs=1e-6)


def test_worked_by_hand():
    # "the" is clipped to two, its largest count in a reference; the pair never occurs.
    the = [["the cat is on the mat", "there is a cat on the mat"]]
    assert score(["the the the the the the the"], the, 1) == pytest.approx(100 * 2 / 7)
    assert score(["the the the the the the the"], the, 2) < 0.01


def test_counts_of_a_sample():
    counts = bleu_statistics(["a cat sat"], [["a cat", "a cat sat here", "a dog sat down there"]])
    # Two and four words are equally near to three: the shorter counts.
    assert counts.tolist() == [[3, 2, 1, 0, 3, 2, 1, 0, 3, 2]]


def test_short_captions_are_penalised():
    # Precision 1; two words against four: exp(1 - 4 / 2).
    assert score(["a cat"], [["a cat sat down"]], 2) == pytest.approx(100 * math.exp(-1))
    assert score(["a cat sat down"], [["a cat"]], 1) == pytest.approx(50)


def test_the_set_is_not_the_mean_of_its_samples():
    right, wrong = ("a cat sat on a mat", ["a cat sat on a mat"]), ("red", ["a big blue bird"])
    assert score([right[0], wrong[0]], [right[1], wrong[1]], 1) == pytest.approx(
        100 * 6 / 7 * math.exp(1 - 10 / 7)
    )


def test_captions_without_a_word():
    assert score([""], [["a cat"]]) == score(["."], [[""]]) == 0.0


WORDS = st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1))
def test_against_the_formula_written_plainly(drawn):
    predictions, references = zip(*drawn, strict=True)

    def count(text, n):
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    precisions = []
    for n in (1, 2):
        matched = proposed = 0
        for prediction, accepted in drawn:
            most = Counter()
            for reference in accepted:
                most |= count(reference, n)
            matched += (count(prediction, n) & most).total()
            proposed += count(prediction, n).total()
        precisions.append(matched / proposed if proposed else 1e-6)
    length = sum(len(p.split()) for p in predictions)
    nearest = sum(
        min((abs(len(r.split()) - len(p.split())), len(r.split())) for r in accepted)[1]
        for p, accepted in drawn
    )
    penalty = 1.0 if length >= nearest else math.exp(1 - nearest / length) if length else 0.0
    expected = 100 * penalty * math.sqrt(precisions[0] * precisions[1])
    assert score(predictions, references, 2) == pytest.approx(expected, abs=1e-3)


def test_statistics_of_a_set_add_up():
    found = captions()
    counts = bleu_statistics(found["predictions"], found["references"])
    halves = np.stack([counts[::2].sum(0), counts[1::2].sum(0)])
    alone = [score(found["predictions"][i::2], found["references"][i::2]) for i in (0, 1)]
    np.testing.assert_allclose(bleu(halves), alone)
