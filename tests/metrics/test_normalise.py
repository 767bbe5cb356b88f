import pytest

from pathweave.metrics.normalise import comparable, normalise


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A Shirt", "shirt"),
        ("the cat and an apple", "cat and apple"),
        ("two", "2"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("ow's'at", "'ow's'at"),
        ("twas", "'twas"),
        ("well", "well"),
        ("wed", "wed"),
        ("its", "its"),
        ("Im", "im"),
        ("yes, it is!", "yes it is"),
        ("black/white", "black white"),
        ("t-shirt", "t shirt"),
        ("t-shirt, red", "t shirt red"),
        ("1,000", "1000"),
        ("1,000-2,000", "10002000"),
        ("u.s.", "us"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("5.", "5"),
        ("red\n\tblue ", "red blue"),
        ("(left)", "left"),
        ("?", ""),
        ("", ""),
        ("the", ""),
        ("dont\u2019", "dont'"),
        ("don\u2019t", "don't"),
        ("cafe\u0301", "caf\u00e9"),
        ("t\u2011shirt", "t shirt"),
    ],
)
def test_known_answers(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize("answer", ["A dog, 2.5 cats", "couldnt", "x/y", "10,000"])
def test_normal_answers_stay(answer):
    assert normalise(normalise(answer)) == normalise(answer)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The cat.", "cat"),
        ("A.", "a"),
        ("The A", "the a"),
        (" ?! ", "?!"),
        ("\u2212", "-"),
        ("", ""),
    ],
)
def test_only_an_empty_answer_is_compared_as_empty(answer, form):
    assert comparable(answer) == form
