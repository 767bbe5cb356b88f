import shutil
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.metrics.tokens import TOKENIZER, tokenize
from tests.metrics.golden import captions


def test_the_words_are_those_of_the_usual_program():
    found = captions()
    assert [" ".join(tokenize(caption)) for caption in found["predictions"]] == found["words"]


WORDS = [
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
    (
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902\u0964",
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0964",
    ),
    ("cafe\u0301 na\u0131\u0308ve A\u030a", "cafe\u0301 na\u0131\u0308ve a\u030a"),
    ("wait... what \u2026 a\u2026b ....", "wait what a b"),
    ("-5 or +5, 3-5 and \u22125 at -0.5", "-5 or +5 3-5 and \u2212 5 at -0.5"),
    ("well\u2010known well\u2011known \u2010 -", "well\u2010known well\u2011known"),
    ("C++, C# and F#; C++11", "c++ c# and f# c++ 11"),
    ("AT&T R&B h&m M&M's X+Y x+y", "at&t r&b h & m m&m 's x+y x + y"),
    ("5\u20ac \u00a35 10\u00a2", "5 $ # 5 10 cents"),
    ("\u00bd cup, 5 m\u00b2, H\u2082O", "1/2 cup 5 m \u00b2 h \u2082 o"),
    ("5:30pm 3.5cm 2.5-3 2.0-liter 5'10 5'9", "5:30 pm 3.5 cm 2.5-3 2.0-liter 5 '10 5 9"),
    ("No. 5, no. It is", "no. 5 no it is"),
    ("\u00abx\u00bb \u300cy\u300d \u201ez soft\u00adhyphen", "x y \u201e z softhyphen"),
    ("a\U0001f600b zero\u200bwidth", "a b zero width"),
    ("", ""),
    (" .,:;?!'\"`- ", ""),
]


@pytest.mark.parametrize(("caption", "words"), WORDS)
def test_words(caption, words):
    assert " ".join(tokenize(caption)) == words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_the_expected_words_are_those_of_the_program_itself(monkeypatch):
    program = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8")
    found = program.tokenize({i: [{"caption": text}] for i, (text, _) in enumerate(WORDS)})
    listed = {"wait...what? yes!! red,blue;green:grey", " .,:;?!'\"`- "}  # as different
    for i, (text, words) in enumerate(WORDS):
        assert text in listed or found[i][0] == words


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
    assert TOKENIZER == "ptb-words-3"
