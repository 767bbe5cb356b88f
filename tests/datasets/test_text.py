from hypothesis import given
from hypothesis import strategies as st

from pathweave.datasets.text import MAX_WORDS, normalise_caption, normalise_question

MARKS = '.!"()*#:;~'


@given(st.text())
def test_the_form_of_captions_and_questions(text):
    for normalise in (normalise_caption, normalise_question):
        normal = normalise(text)
        assert normalise(normal) == normal
        assert normal == normal.strip()
        assert len(normal.split()) <= MAX_WORDS
        assert not set(normal) & set(MARKS)
        assert "  " not in normal


def test_marks_part_words_of_captions_and_join_those_of_questions():
    assert normalise_caption("A T.V. set; on") == "a t v set on"
    assert normalise_question("A T.V. set; on?") == "a tv set on?"


def test_the_fiftieth_word_is_the_last():
    assert normalise_caption(" ".join(map(str, range(60)))).split()[-1] == "49"
