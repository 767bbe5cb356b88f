"""Captions and questions in the one form in which they are learnt (as in X-InstructBLIP)."""

import re

MAX_WORDS = 50

_MARKS = re.compile(r'[.!"()*#:;~]')


def normalise_caption(text: str) -> str:
    """Return a caption to learn: lower case, marks as spaces, at most 50 words.

    Example:
        >>> normalise_caption('A man: "Hello!"  He waves.')
        'a man hello he waves'
    """
    return _cut(_MARKS.sub(" ", text.lower()))


def normalise_question(text: str) -> str:
    """Return a question to ask: lower case, without marks, at most 50 words.

    Example:
        >>> normalise_question("What's this (a dog)?")
        "what's this a dog?"
    """
    return _cut(_MARKS.sub("", text.lower()))


def _cut(text: str) -> str:
    return " ".join(text.split()[:MAX_WORDS])
