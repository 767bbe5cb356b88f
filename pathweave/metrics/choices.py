"""Top-1 accuracy among choices: the one that is ranked first, or that a generated text names."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.errors import ManifestError
from pathweave.metrics.normalise import ARTICLES, comparable, plain
from pathweave.metrics.references import check_references, per_sample
from pathweave.metrics.tokens import tokenize

# What follows the letter A where it is a name: the end, a mark, or a word that no article precedes.
_AFTER_A_NAME = r"(?=\W*$|[^\w\s'/-]|['/-](?!\w)|\s+(?:and|as|because|is|or|was)\b)"


@per_sample
def ranking(prediction: str, accepted: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Return 100 for each picked choice that a reference stands for, 0 for the others.

    A reference stands for the choice that is written like it, so that "-5" is not "5"; only if
    there is none, for one that equals it after normalisation.

    Args:
        prediction: The choice picked; called with one a sample.
        accepted: All accepted answers; called with those of each sample.
        choices: The choices, called with those of each sample; without them, picks are compared
            as they are.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> ranking(["-5", "5"], [["5"], ["5"]], [["-5", "5"]] * 2).ravel()
        array([  0., 100.])
    """
    return 100.0 * _is_right(prediction, accepted, choices)


def word_match(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    choices: Sequence[Sequence[str]] = (),
) -> Float[np.ndarray, "samples 1"]:
    """Return 100 for each text that names a choice which a reference stands for, 0 for the others.

    Args:
        predictions: One generated text a sample.
        references: All accepted answers of each sample, in the same order.
        choices: The choices of each sample.

    Raises:
        ManifestError: If there is no sample, the lengths differ, or a sample has no reference or
            no choices.

    Example:
        >>> choices = ["a guitar", "a bass guitar"]
        >>> word_match(["That is the bass guitar."], [["a bass guitar"]], [choices])
        array([[100.]])
    """
    check_references(predictions, references)
    without = [i for i in range(len(predictions)) if i >= len(choices) or not choices[i]]
    if without:
        raise ManifestError(
            f"sample {without[0]} must have choices for word_match, got none; add 'choices' to its "
            "manifest or choose exact_match"
        )

    @per_sample
    def score(text: str, accepted: Sequence[str], names: Sequence[str]) -> float:
        named = named_choice(text, names)
        return 100.0 * (named is not None and _is_right(named, accepted, names))

    return score(predictions, references, choices)


def _is_right(choice: str, accepted: Sequence[str], choices: Sequence[str]) -> bool:
    stands_for = _stands_for(choice, choices)
    return choice != "" and any(stands_for & _stands_for(text, choices) for text in accepted)


def _stands_for(text: str, choices: Sequence[str]) -> set[str]:
    """Return the choices that a text stands for, most literally; itself if there are none."""
    for form in (plain, lambda each: plain(each).casefold(), comparable):
        found = {plain(choice) for choice in choices if form(choice) == form(text)}
        if found:
            return found
    return {plain(text)}


def named_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the choice whose words occur in a text in a row, or None if there is none.

    If several do, the one with the most words, so that "bass guitar" does not count as "guitar";
    among those the first in the order of the choices, wherever it stands in the text. The released
    code compares single words, so there a name of two words is never found. Articles do not
    count, and underscores are spaces. A choice that is an article itself, such as the letter A,
    is named where no article can stand; one of marks alone, by the same marks between spaces.
    """
    words = _words(text)
    best, most = None, 0
    for choice in choices:
        name = _words(choice)
        runs = (words[i : i + len(name)] for i in range(len(words) - len(name) + 1))
        is_named = name in runs if name else _is_named_literally(choice, text)
        if is_named and max(1, len(name)) > most:
            best, most = choice, max(1, len(name))
    return best


def _is_named_literally(choice: str, text: str) -> bool:
    """Return whether a text names a choice that has no word but articles."""
    name, text = plain(choice), plain(text)
    sign = re.escape(name)
    if not re.search(r"\w", name):
        return re.search(rf"(?<!\S){sign}(?=[\s.,;:!?]|$)", text) is not None if name else False
    if re.search(rf"(?<!\w){sign}{_AFTER_A_NAME}", text, re.IGNORECASE):
        return True
    # "Option A shows it": a capital within a sentence.
    return name[0].isupper() and re.search(rf"(?<=\w\s){sign}(?=\s+[a-z])", text) is not None


def _words(text: str) -> list[str]:
    words = [word.rstrip(".") for word in tokenize(plain(text).replace("_", " "))]
    return [word for word in words if word not in ARTICLES]
