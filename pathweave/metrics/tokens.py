"""Words of a caption, cut as the usual caption evaluation cuts them.

That program (coco-caption, arXiv 1504.00325) runs the Penn Treebank tokenizer of Stanford CoreNLP
3.4.1, which needs Java, lower-cases, and drops punctuation. This one needs no Java and gives the
same words for every caption and question of MCL-mini (2,820 different ones) and for 7,586 captions
of sounds that come with the package aac-metrics 0.6.0. Brackets stay in both, as the words
``-lrb-`` and ``-rrb-``; currencies become ``$`` or ``#``; letters keep their combining marks, in
the form that they are written in. It differs in rare writing:

- smileys and runs such as ``**`` and ``<b>`` are cut into their marks, and ``!!`` is dropped;
- words of Gurmukhi, Kannada, Malayalam, Sinhala, Khmer and Burmese stay whole: the program does
  not know every mark of theirs, and loses those (emoji are dropped by both);
- telephone numbers and mixed numbers (``3 1/2``) are cut at the space;
- a word is an abbreviation if it is in a short list or a single letter (``u.s.``, ``c.``),
  whatever follows it;
- words joined by ``!`` or ``?`` without a space are cut there.
"""

import re
import unicodedata

TOKENIZER = "ptb-words-3"

_PLAIN: dict[str, str | None] = {"\xad": None, "\xa3": " # ", "\xa2": " cents "}
_PLAIN |= {"\u2019": "'", "\u2018": "`", "\u201c": '"', "\u201d": '"'}
_PLAIN |= dict.fromkeys("\u20ac\xa4\xa5", " $ ")
_PLAIN |= dict(
    zip("\xbc\xbd\xbe\u2153\u2154", (" 1/4 ", " 1/2 ", " 3/4 ", " 1/3 ", " 2/3 "), strict=True)
)
# Dashes, the ellipsis, quotation marks of other languages and signs without width part words.
_PLAIN |= dict.fromkeys(
    "\u2013\u2014\u2026\xab\xbb\u2039\u203a\u300c\u300d\u200b\u200c\u200d\ufeff", " "
)
_PLAIN |= {chr(c): f" {chr(c)} " for c in (0xB2, 0xB3, 0xB9, 0x2070, *range(0x2074, 0x208A))}

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

# Two words written as one, and where they are cut.
_JOINED = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3}
_JOINED |= {"'tis": 2, "'twas": 2, "y'all": 2}

_ABBREVIATIONS = """
    apr aug ave blvd capt co col corp dec dept dr est esq etc feb fri ft gen gov hon inc jan jr lt
    ltd mon mr mrs ms mt nov oct ph.d pres prof rd rep rev sen sept sgt sr st thu tue vs wed
""".split()  # noqa: SIM905 (as a list it would fill fifty lines)

_TABLE = str.maketrans(_PLAIN)

# Combining marks: accents on their own, vowel signs of Indian scripts.
_MARKS = "".join(
    chr(code) for code in range(0x300, 0xFFFF) if unicodedata.category(chr(code))[0] == "M"
)
_W = rf"[\w{_MARKS}]"  # of a word
_L = rf"(?:(?![\d_]){_W})"  # a letter
_END = rf"(?!{_W})"
_JOIN = "[-\u2010\u2011/.]"

_TOKEN = re.compile(
    rf"""
    https?://\S+ | www\.[^\s,;]+ | [\w.+-]+@[\w-]+(?:\.[\w-]+)*   # addresses
    | '(?:n'|\d\ds?{_END}(?!")|(?:em|cause|tis|twas){_END})    # words that begin with a mark
    | n't{_END} | '(?:s|m|d|re|ve|ll){_END}                       # clitics
    | (?:{"|".join(map(re.escape, _ABBREVIATIONS))})\.(?!{_W}) | no\.(?=\s*\d)
    | {_L}(?:\.{_L})*\.(?!{_W}) | {_L}(?:\.{_L})+{_END}           # initials, with the last dot
    | c\+\+ | [cf]\# | (?-i:[A-Z]+(?:[&+][A-Z]+)+)        # C++, AT&T
    | [#@]{_L}{_W}*
    # numbers: 1,000  3:00  -0.5  2-3  3d
    | (?:(?<!{_W})[-+])?(?:(?<!\.)\.)?\d+(?:(?:[.,:]\d+)+|{_W}*)(?:[-\u2010\u2011/]{_W}+)*
    | (?:{_W}+-)*o'clock | ma'am | c'mon | y'all
    | (?:[dl]|o)'{_L}{{3,}}(?:-{_W}+)*                            # d'artagnan, o'neil
    | {_W}+?(?:{_JOIN}{_W}+?)*(?=n't{_END}) | {_W}+(?:{_JOIN}{_W}+)*
    | [()\[\]{{}}] | [^\w\s.,:;?!"'`\u2010\u2011\U00010000-\U0010ffff-]
    """,
    re.VERBOSE | re.IGNORECASE,
)


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption, lower-case, without punctuation.

    Example:
        >>> tokenize("A man's T-shirt, isn't it?")
        ['a', 'man', "'s", 't-shirt', 'is', "n't", 'it']
    """
    words: list[str] = []
    for word in _TOKEN.findall(caption.translate(_TABLE)):
        word = word.lower()
        cut = _JOINED.get(word, len(word))
        words.extend(part for part in (word[:cut], word[cut:]) if part)
    return [_BRACKETS.get(word, word) for word in words]
