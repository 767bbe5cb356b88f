from hypothesis import given
from hypothesis import strategies as st

from pathweave.data.utf8 import find_bad_text, printable

TEXTS = st.text(st.characters(codec=None), max_size=9)


@given(TEXTS)
def test_what_is_printable_is_utf_8_and_sound_text_stays(text):
    shown = printable(text)
    shown.encode()
    assert (shown == text) == (find_bad_text(text) == "")


VALUES = st.recursive(
    TEXTS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@given(VALUES)
def test_bad_text_is_found_wherever_it_is(value):
    try:
        "".join(texts(value)).encode()
        assert find_bad_text(value) == ""
    except UnicodeEncodeError:
        assert "\\ud" in find_bad_text(value)


def texts(value):
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return [text for element in value for text in texts(element)]
    return [value] if isinstance(value, str) else []
