"""Golden numbers: pycocoevalcap 1.2's Cider on the captions below, tokenized by ``tokenize``."""

import math

import pytest

from pathweave.errors import ManifestError
from pathweave.evaluate.cider import TOKENIZER, cider_d, tokenize

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


def test_same_as_the_usual_program():
    assert cider_d(PREDICTIONS, REFERENCES) == pytest.approx(100 * GOLDEN, abs=1e-6)


def test_identical_captions_without_shared_words():
    captions = ["red car on road", "two dogs run fast", "water flows down hill"]
    assert cider_d(captions, [[caption] for caption in captions]) == pytest.approx(1000)


def test_disjoint_captions():
    assert cider_d(["red car", "two dogs"], [["blue sky"], ["four birds"]]) == 0.0


def test_worked_by_hand():
    # One word each, so only unigrams count: cosine 1 for the first sample, 0 for the second.
    # Mean over n = 1..4: 1/4; over the samples: 1/8; times 10 and 100.
    assert cider_d(["cat", "dog"], [["cat"], ["bird"]]) == pytest.approx(125)


def test_repeated_words_are_clipped():
    # Against "cat" (weight w = log 2), "cat cat" weighs 2 w, clipped to w: cosine 1/2, and one
    # pair of words more: exp(-1 / 72).
    expected = 1000 * 0.5 / 4 / 2 * math.exp(-1 / 72)
    assert cider_d(["cat cat", "dog"], [["cat"], ["bird"]]) == pytest.approx(expected)


def test_length_is_penalised():
    short = cider_d(["red cat sits", "x"], [["red cat sits"], ["y"]])
    long = cider_d(["red cat sits " + "on " * 12, "x"], [["red cat sits"], ["y"]])
    assert long < 0.2 * short


def test_one_sample_scores_zero():
    assert cider_d(["a cat"], [["a cat"]]) == 0.0


def test_tokens():
    assert tokenize('A "red-brown" dog; 3.5 kg, 1,000 cats, don\'t!') == [
        "a",
        "red-brown",
        "dog",
        "3.5",
        "kg",
        "1,000",
        "cats",
        "do",
        "n't",
    ]
    assert tokenize("red,blue ...") == ["red", "blue"]
    assert TOKENIZER.startswith("words-1")


def test_wrong_arguments():
    with pytest.raises(ManifestError, match="must be as many"):
        cider_d(["a"], [])
