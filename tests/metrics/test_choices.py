import pytest

from pathweave.errors import ManifestError
from pathweave.metrics import METRICS
from pathweave.metrics.choices import named_choice, ranking, word_match

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


LETTERS = ["A", "B", "C"]


@pytest.mark.parametrize(
    ("text", "choices", "named"),
    [
        ("The answer is B.", LETTERS, "B"),
        ("B", LETTERS, "B"),
        ("(c)", LETTERS, "C"),
        ("**B**", LETTERS, "B"),
        ("It is a plan b.", ["plan a", "plan b"], "plan b"),
        ("It is plan A.", ["plan b", "plan a"], "plan a"),
        ("A", LETTERS, "A"),
        ("a.", LETTERS, "A"),
        ("The answer is A.", LETTERS, "A"),
        ("It must be (A), I think", LETTERS, "A"),
        ("A is right", LETTERS, "A"),
        ("Option A shows it", LETTERS, "A"),
        ("'A'", LETTERS, "A"),
        ("A dog is seen, so C.", LETTERS, "C"),
        ("It is a dog", LETTERS, None),
        ("It is an A-frame, a t-shirt, a 'red' one", LETTERS, None),
        ("This Is A Dog", LETTERS, None),
        ("the", ["the", "an"], "the"),
        ("it is -5 degrees", ["5", "-5"], "-5"),
        ("it is 5 degrees", ["-5", "5"], "5"),
        ("it is written in C++.", ["C", "C++"], "C++"),
        ("it is written in C.", ["C++", "C"], "C"),
        ("the sign is <", [">", "<"], "<"),
        ("It is -.", ["+", "-"], "-"),
        ("a t-shirt", ["+", "-"], None),
        ("What?", ["?", ""], None),
        ("?", ["", "?"], "?"),
        ("the U.S. flag", ["U.S.", "U.K."], "U.S."),
        ("un cafe\u0301 noir", ["th\u00e9", "caf\u00e9"], "caf\u00e9"),
        ("\u0928\u0940\u0932\u093e \u0939\u0948", ["\u0928\u0940\u0932"], None),
    ],
)
def test_sentences_that_name_a_choice(text, choices, named):
    assert named_choice(text, choices) == named
    if named is not None:
        others = [choice for choice in choices if choice != named]
        found = word_match([text] * 2, [[named], others], [choices] * 2)
        assert found[:, 0].tolist() == [100, 0]


@pytest.mark.parametrize(
    "choices",
    [
        ["-5", "5"],
        ["<5", ">5"],
        ["C++", "C", "C#"],
        ["A", "B", "the", "a b"],
        ["+", "-", "<", "?", "."],
        ["US", "us"],
        ["two", "2"],
        ["t-shirt", "t shirt"],
    ],
)
def test_under_ranking_every_choice_is_right_for_itself_alone(choices):
    for answer in choices:
        metric = METRICS["ranking"]
        found = metric.measure(choices, [[answer]] * len(choices), [choices] * len(choices))
        assert found[:, 0].tolist() == [100.0 * (choice == answer) for choice in choices]


def test_a_choice_given_twice_is_right_both_times():
    assert ranking(["A", "A"], [["A"], ["B"]], [["A", "A"]] * 2)[:, 0].tolist() == [100, 0]


@pytest.mark.parametrize(
    ("pick", "reference", "expected"),
    [
        ("a shirt", "shirt", 100),
        ("a shirt", "Shirt.", 100),
        ("a shirt", " A SHIRT\n", 100),
        ("two cats", "2 cats", 100),
        ("caf\u00e9", "cafe\u0301", 100),
        ("two cats", "shirt", 0),
        ("two cats", "three cats", 0),
    ],
)
def test_a_reference_written_otherwise_stands_for_the_choice_that_normalises_alike(
    pick, reference, expected
):
    choices = ["a shirt", "two cats", "caf\u00e9"]
    assert ranking([pick], [[reference]], [choices])[0, 0] == expected


def test_without_choices_picks_are_compared_as_they_are():
    found = METRICS["ranking"].measure(["A", "-5", "caf\u00e9"], [["A"], ["5"], ["cafe\u0301"]])
    assert found[:, 0].tolist() == [100, 0, 100]


def test_percent():
    texts = ["a guitar sounds", "some shirt", "nothing", "a night stand"]
    references = [["the guitar"], ["a t-shirt"], ["a shirt"], ["night_stand", "tv_stand"]]
    found = word_match(texts, references, [CHOICES] * 4)
    assert found[:, 0].tolist() == [100, 0, 0, 100]


def test_naming_every_class_does_not_help():
    texts = [" ".join(["cat", "dog", "bird"])] * 3
    found = word_match(texts, [["cat"], ["dog"], ["bird"]], [["cat", "dog", "bird"]] * 3)
    assert found[:, 0].tolist() == [100, 0, 0]


def test_a_sample_without_choices():
    with pytest.raises(ManifestError, match=r"sample 1 must have choices for word_match, got none"):
        word_match(["a", "b"], [["a"], ["b"]], [["a"], []])
    with pytest.raises(ManifestError, match=r"sample 0 must have choices .*; add 'choices' to its"):
        METRICS["word_match"].measure(["a"], [["a"]])
