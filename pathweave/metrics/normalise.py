"""Answer normalisation of the VQA evaluation (VQA: Visual Question Answering, arXiv 1505.00468).

The published evaluation lower-cases, removes articles and most punctuation, writes number words
as digits and puts back missing apostrophes. It does the latter steps only where the annotators
disagree; here they are done always. Its table turns "somebody'd" into "somebodyd"; here it is the
other way round, as for all other words. Two ways to write the same characters, such as an accent of
its own or a curly apostrophe, are the same here.
"""

import re
import unicodedata

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")

# As published: a period before a digit stays (".5"), any other goes ("5.", "u.s.").
_PERIOD = re.compile(r"\.(?!\d)")

ARTICLES = {"a", "an", "the"}

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}

# The words of the published table, spelt right. Forms that are also other words without their
# apostrophe (we'd, she'll, it's) are not in it.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're
    there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
    you're you've
""".split()  # noqa: SIM905 (as a list it would fill a hundred lines)


_MISSPELT = {
    right[:i] + right[i + 1 :]: right
    for right in _CONTRACTIONS
    for i, letter in enumerate(right)
    if letter == "'"
}


# Typographic signs that keyboards have another key for.
_TYPOGRAPHIC = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bc\uff07", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)


def unify(text: str) -> str:
    """Return a text with composed accents (NFC) and the signs that are on keyboards."""
    return unicodedata.normalize("NFC", text).translate(_TYPOGRAPHIC)


def plain(text: str) -> str:
    """Return a unified text on one line, without space around it."""
    return unify(text).replace("\n", " ").replace("\t", " ").strip()


def normalise(answer: str) -> str:
    """Return an answer in the form that the published evaluation compares.

    Example:
        >>> normalise("The two Dogs, dont bark!")
        "2 dogs don't bark"
    """
    return " ".join(word for word in _words(answer) if word not in ARTICLES)


def comparable(answer: str) -> str:
    """Return an answer in the form in which answers are compared: empty for an empty answer alone.

    That is its normal form. An answer of articles alone ("A", "the") keeps them; one of marks alone
    ("+", "?") is compared as it is but for case.

    Example:
        >>> [comparable(answer) for answer in ("A dog", "A.", "+", " ")]
        ['dog', 'a', '+', '']
    """
    return normalise(answer) or " ".join(_words(answer)) or plain(answer).casefold()


def _words(answer: str) -> list[str]:
    words = strip_punctuation(plain(answer)).lower().split()
    words = [_DIGITS.get(word, word) for word in words]
    return [_MISSPELT.get(word, word) for word in words]


def strip_punctuation(text: str) -> str:
    """Return a text in which punctuation marks are spaces, or gone, by the published rules.

    Example:
        >>> strip_punctuation("a t-shirt, 3.5 kg.")
        'a t shirt 3.5 kg'
    """
    # Whether a mark becomes nothing or a space is decided on the text as it came in.
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        is_at_edge = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if is_at_edge or has_number else " ")
    return _PERIOD.sub("", stripped)
