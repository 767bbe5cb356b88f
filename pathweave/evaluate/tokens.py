"""Words of a caption, cut as the usual caption evaluation cuts them.

That program (coco-caption, arXiv 1504.00325) runs the Penn Treebank tokenizer of Stanford CoreNLP
3.4.1, which needs Java, lower-cases, and drops punctuation. This one needs no Java and gives the
same words for every caption and question of MCL-mini (2,820 different ones) and for 7,586 captions
of sounds that come with the package aac-metrics 0.6.0. Brackets stay in both, as the words
``-lrb-`` and ``-rrb-``. It differs in rare writing:

- smileys are cut into their marks, and runs such as ``!!``, which stay there, are dropped;
- telephone numbers and mixed numbers (``3 1/2``) are cut at the space;
- signs such as a fraction or the euro stay as they are;
- a word is an abbreviation if it is in a short list or a single letter (``u.s.``, ``c.``),
  whatever follows it;
- words joined by ``!`` or ``?`` without a space are cut there.
"""

import re

TOKENIZER = "ptb-words-2"

_PLAIN = str.maketrans({"\u2019": "'", "\u2018": "`", "\u201c": '"', "\u201d": '"'})
_PLAIN |= str.maketrans(dict.fromkeys("\u2013\u2014", " "))

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

# Two words written as one, and where they are cut.
_JOINED = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "gimme": 3, "lemme": 3}
_JOINED |= {"'tis": 2, "'twas": 2, "y'all": 2}

_ABBREVIATIONS = """
    apr aug ave blvd capt co col corp dec dept dr est esq etc feb fri ft gen gov hon inc jan jr lt
    ltd mon mr mrs ms mt nov oct ph.d pres prof rd rep rev sen sept sgt sr st thu tue vs wed
""".split()  # noqa: SIM905 (as a list it would fill fifty lines)

_TOKEN = re.compile(
    rf"""
    https?://\S+ | www\.[^\s,;]+ | [\w.+-]+@[\w-]+(?:\.[\w-]+)*   # addresses
    | '(?:n'|\d\ds?\b|(?:em|cause|tis|twas)\b)                    # words that begin with a mark
    | n't\b | '(?:s|m|d|re|ve|ll)\b                               # clitics
    | (?:{"|".join(map(re.escape, _ABBREVIATIONS))})\.(?!\w)
    | [^\W\d_](?:\.[^\W\d_])*\.(?!\w) | [^\W\d_](?:\.[^\W\d_])+\b # initials, with the last dot
    | [#@][^\W\d_]\w*
    | \.?\d+(?:[.,:]\d+)*\w*(?:[-/]\w+)*                          # numbers: 1,000  3:00pm  2-3  3d
    | (?:\w+-)*o'clock | ma'am | c'mon | y'all
    | (?:[dl]|o)'[^\W\d_]{{3,}}(?:-\w+)*                          # d'artagnan, o'neil
    | \w+?(?:[-/.]\w+?)*(?=n't\b) | \w+(?:[-/.]\w+)*
    | [()\[\]{{}}] | [^\w\s.,:;?!"'`-]
    """,
    re.VERBOSE,
)


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption, lower-case, without punctuation.

    Example:
        >>> tokenize("A man's T-shirt, isn't it?")
        ['a', 'man', "'s", 't-shirt', 'is', "n't", 'it']
    """
    words: list[str] = []
    for word in _TOKEN.findall(caption.lower().translate(_PLAIN)):
        cut = _JOINED.get(word, len(word))
        words.extend(part for part in (word[:cut], word[cut:]) if part)
    return [_BRACKETS.get(word, word) for word in words]
