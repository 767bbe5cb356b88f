"""Golden numbers: pycocoevalcap 1.2's Cider, on the captions below and on tests/golden."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.metrics.cider import cider, cider_d
from tests.metrics.golden import captions

PREDICTIONS = [
    "a man riding a wave on top of a surfboard",
    "a dog dog dog dog runs",
    "two children play with a red ball in the park",
    "birds are singing",
    "",
    "a white chair with four legs",
    "the the the the",
    "someone's phone is ringing and it doesn't stop",
]
REFERENCES = [
    ["a man riding a wave on top of a surfboard", "a surfer rides a large wave"],
    ["a dog runs", "the brown dog is running fast through a field"],
    [
        "two kids playing with a ball",
        "children play in the park with a red ball",
        "kids at the park",
    ],
    ["a car engine starts"],
    ["water is flowing", "water flows in a river"],
    [
        "a white chair with four legs and a very long back made out of wood and painted metal",
        "a chair",
    ],
    ["the cat sat on the mat"],
    ["a phone is ringing", "someone's phone rings and doesn't stop ringing"],
]
GOLDEN = 1.5979604163081982


def score(predictions, references):
    return cider_d(predictions, references).mean()


def test_same_as_the_usual_program():
    assert score(PREDICTIONS, REFERENCES) == pytest.approx(100 * GOLDEN, abs=1e-6)


def test_identical_captions_without_shared_words():
    captions = ["red car on road", "two dogs run fast", "water flows down hill"]
    assert score(captions, [[caption] for caption in captions]) == pytest.approx(1000)


def test_disjoint_captions():
    assert score(["red car", "two dogs"], [["blue sky"], ["four birds"]]) == 0.0


def test_worked_by_hand():
    # One word each, so only unigrams count: cosine 1 for the first sample, 0 for the second.
    # Mean over n = 1..4: 1/4; over the samples: 1/8; times 10 and 100.
    assert score(["cat", "dog"], [["cat"], ["bird"]]) == pytest.approx(125)


def test_repeated_words_are_clipped():
    # Against "cat" (weight w = log 2), "cat cat" weighs 2 w, clipped to w: cosine 1/2, and one
    # pair of words more: exp(-1 / 72).
    expected = 1000 * 0.5 / 4 / 2 * math.exp(-1 / 72)
    assert score(["cat cat", "dog"], [["cat"], ["bird"]]) == pytest.approx(expected)


def test_length_is_penalised():
    short = score(["red cat sits", "x"], [["red cat sits"], ["y"]])
    long = score(["red cat sits " + "on " * 12, "x"], [["red cat sits"], ["y"]])
    assert long < 0.2 * short


def test_one_sample_scores_zero():
    assert score(["a cat"], [["a cat"]]) == 0.0


def plain(prediction, references, all_references, is_d):
    """CIDEr of one sample of one-letter words, written as in the paper."""

    def count(caption, n):
        return Counter(caption[i : i + n] for i in range(len(caption) - n + 1))

    def idf(ngram):
        containing = sum(any(ngram in r for r in accepted) for accepted in all_references)
        return math.log(len(all_references) / max(1, containing))

    total = 0.0
    for n in (1, 2, 3, 4):
        for reference in references:
            c, s = count(prediction, n), count(reference, n)
            g = {k: (c[k] * idf(k), s[k] * idf(k)) for k in c | s}
            dot = sum((min(x, y) if is_d else x) * y for x, y in g.values())
            norm = math.sqrt(sum(x * x for x, _ in g.values()) * sum(y * y for _, y in g.values()))
            cosine = dot / norm if norm else 0.0
            gap = max(0, len(prediction) - 1) - max(0, len(reference) - 1)
            total += cosine * (math.exp(-(gap**2) / 72) if is_d else 1.0)
    return 1000 * total / 4 / len(references)


LETTERS = st.text("abcd", max_size=7)
SETS = st.lists(st.tuples(LETTERS, st.lists(LETTERS, min_size=1, max_size=3)), min_size=1)


@given(SETS, st.booleans())
def test_against_the_formula_written_plainly(drawn, is_d):
    predictions, references = zip(*drawn, strict=True)
    spaced = [" ".join(p) for p in predictions], [[" ".join(r) for r in a] for a in references]
    found = (cider_d if is_d else cider)(*spaced)[:, 0]
    expected = [plain(p, r, references, is_d) for p, r in drawn]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_plain_cider_neither_clips_nor_penalises():
    captions = ["cat cat", "dog"], [["cat"], ["bird"]]
    assert cider(*captions)[:, 0] == pytest.approx([250, 0])
    found = captions_of_the_golden_file()
    assert (cider(*found) >= cider_d(*found) - 1e-9).all()


def captions_of_the_golden_file():
    return captions()["predictions"], captions()["references"]


def test_same_as_the_usual_program_on_every_sample():
    scores = cider_d(*captions_of_the_golden_file())[:, 0]
    np.testing.assert_allclose(scores / 100, captions()["cider_d"]["each"], atol=1e-6)
