import pytest

from pathweave.errors import ManifestError
from pathweave.evaluate.metrics import METRICS
from pathweave.evaluate.word_match import named_choice, word_match_statistics

CHOICES = ["a guitar", "a bass guitar", "a t-shirt", "a shirt", "night_stand", "tv_stand"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("guitar", "a guitar"),
        ("A sound of the Guitar.", "a guitar"),
        ("it is a bass guitar", "a bass guitar"),
        ("a guitar, or a bass", "a guitar"),
        ("this is a t-shirt", "a t-shirt"),
        ("a shirt or a t-shirt", "a t-shirt"),
        ("a model of a night stand", "night_stand"),
        ("a stand at night", None),
        ("tv_stand and night_stand", "night_stand"),
        ("guitars", None),
        ("", None),
    ],
)
def test_named_choice(text, named):
    assert named_choice(text, CHOICES) == named


def test_choices_without_a_word_are_never_named():
    assert named_choice("the", ["the", "?"]) is None


def test_percent():
    texts = ["a guitar sounds", "some shirt", "nothing", "a night stand"]
    references = [["the guitar"], ["a t-shirt"], ["a shirt"], ["night_stand", "tv_stand"]]
    found = word_match_statistics(texts, references, [CHOICES] * 4)
    assert found[:, 0].tolist() == [100, 0, 0, 100]


def test_naming_every_class_does_not_help():
    texts = [" ".join(["cat", "dog", "bird"])] * 3
    found = word_match_statistics(texts, [["cat"], ["dog"], ["bird"]], [["cat", "dog", "bird"]] * 3)
    assert found[:, 0].tolist() == [100, 0, 0]


def test_a_sample_without_choices():
    with pytest.raises(ManifestError, match=r"sample 1 must have choices for word_match, got none"):
        word_match_statistics(["a", "b"], [["a"], ["b"]], [["a"], []])
    with pytest.raises(ManifestError, match=r"sample 0 must have choices .*; add 'choices' to its"):
        METRICS["word_match"].measure(["a"], [["a"]])
