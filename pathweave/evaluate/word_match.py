"""Top-1 accuracy of generated text: the class that the text names against the right one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.errors import ManifestError
from pathweave.evaluate.exact_match import check_references
from pathweave.evaluate.normalise import normalise
from pathweave.evaluate.tokens import tokenize

_ARTICLES = {"a", "an", "the"}


def word_match_statistics(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    choices: Sequence[Sequence[str]],
) -> Float[np.ndarray, "samples 1"]:
    """Return 100 for each text whose named class is a reference, 0 for the others.

    Args:
        predictions: One generated text a sample.
        references: All accepted answers of each sample, in the same order.
        choices: Names of the classes of each sample.

    Raises:
        ManifestError: If there is no sample, the lengths differ, or a sample has no reference or
            no choices.

    Example:
        >>> choices = ["a guitar", "a bass guitar"]
        >>> word_match_statistics(["That is the bass guitar."], [["a bass guitar"]], [choices])
        array([[100.]])
    """
    check_references(predictions, references)
    scores = []
    for i, (text, accepted) in enumerate(zip(predictions, references, strict=True)):
        names = choices[i] if i < len(choices) else ()
        if not names:
            raise ManifestError(
                f"sample {i} must have choices for word_match, got none; add 'choices' to its "
                "manifest or choose exact_match"
            )
        named = named_choice(text, names)
        right = named is not None and normalise(named) in {normalise(r) for r in accepted}
        scores.append(100.0 * right)
    return np.array(scores)[:, None]


def named_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the choice whose words occur in a text in a row, or None if there is none.

    If several do, the one with the most words, so that "bass guitar" does not count as "guitar";
    among those the first in the order of the choices, wherever it stands in the text. The released
    code compares single words, so there a name of two words is never found. Articles do not
    count, and underscores are spaces.
    """
    words = _words(text)
    best, most = None, 0
    for choice in choices:
        name = _words(choice)
        runs = (words[i : i + len(name)] for i in range(len(words) - len(name) + 1))
        if len(name) > most and name in runs:
            best, most = choice, len(name)
    return best


def _words(text: str) -> list[str]:
    return [word for word in tokenize(text.replace("_", " ")) if word not in _ARTICLES]
