import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.evaluate.tokens import TOKENIZER, tokenize
from tests.evaluate.golden import captions


def test_the_words_are_those_of_the_usual_program():
    found = captions()
    assert [" ".join(tokenize(caption)) for caption in found["predictions"]] == found["words"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's dog isn't here; it's off.", "a man 's dog is n't here it 's off"),
        ("the dogs' bowl, James' and Tom\u2019s", "the dogs bowl james and tom 's"),
        (
            "shouldn't've they'd we'll I'm you're I've",
            "should n't 've they 'd we 'll i 'm you 're i 've",
        ),
        ("I cannot; gonna gimme 'tis y'all", "i can not gon na gim me 't is y' all"),
        ("the man 's hat is n't red", "the man 's hat is n't red"),
        ("state-of-the-art T-shirts -- e-mail - re-", "state-of-the-art t-shirts e-mail re"),
        ("black/white and/or w/ 9/11", "black/white and/or w / 9/11"),
        ("1,000 at 3.5, .5 or 5. 10:30 2-3 3d 10th", "1,000 at 3.5 .5 or 5 10:30 2-3 3d 10th"),
        ("the '90s, 5 o'clock, rock'n'roll, O'Neil", "the '90s 5 o'clock rock 'n' roll o'neil"),
        ("U.S. and a D.V.D at 5 p.m.", "u.s. and a d.v.d at 5 p.m."),
        ("Mr. Smith on St. John's Rd. etc.", "mr. smith on st. john 's rd. etc."),
        ("(left) [right] {x}", "-lrb- left -rrb- -lsb- right -rsb- -lcb- x -rcb-"),
        ("$5, 50% & x+y=z #1 #tag @home", "$ 5 50 % & x + y = z # 1 #tag @home"),
        ("\u201cquoted\u201d 'so' ``too''", "quoted so too"),
        ("wait...what? yes!! red,blue;green:grey", "wait what yes red blue green grey"),
        ("see www.foo.com or me@foo.com", "see www.foo.com or me@foo.com"),
        ("caf\u00e9 \u2013 na\u00efve\u2014so", "caf\u00e9 na\u00efve so"),
        ("", ""),
        (" .,:;?!'\"`- ", ""),
    ],
)
def test_words(caption, words):
    assert " ".join(tokenize(caption)) == words


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_gives_words(caption):
    for word in tokenize(caption):
        assert word
        assert not any(letter.isspace() for letter in word)


@pytest.mark.parametrize("piece", ["a-", "a", ".", "a'", "1,", "x.", "'", "-"])
def test_long_texts_take_no_longer_than_they_should(piece):
    start = time.perf_counter()
    tokenize(piece * 2000)
    assert time.perf_counter() - start < 1


def test_the_tokenizer_has_a_name():
    assert TOKENIZER == "ptb-words-2"
