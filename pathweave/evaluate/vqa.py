"""VQA accuracy: agreement of an answer with those of several annotators.

VQA: Visual Question Answering (arXiv 1505.00468). An answer that three other annotators gave is
right, one that two gave is worth 2/3. To compare with human accuracy, one annotator at a time is
left out: Acc = mean over j of min(1, (annotators other than j who gave the answer) / 3). A question
with only three annotators who agree scores 66.7 at most, in both functions here.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.evaluate.normalise import comparable, normalise, plain, strip_punctuation, unify
from pathweave.evaluate.references import of_each


def vqa_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return the accuracy of each answer, in percent, as the official evaluation computes it.

    Answer and references are normalised if the references differ, and compared as they are, but
    for space around them, if the annotators all wrote the same.

    Args:
        predictions: One answer a sample.
        references: The answer of every annotator, the same ones repeated.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> vqa_accuracy(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[50.]])
    """

    def score(prediction: str, references: Sequence[str]) -> float:
        answer, accepted = plain(prediction), [*map(plain, references)]
        if len(set(accepted)) > 1:
            answer, accepted = comparable(answer), [*map(comparable, accepted)]
        return _leave_one_out(answer, accepted)

    return of_each(score, predictions, references)


def vqa_accuracy_released(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return the accuracy of each answer as the released code computes it (that of LAVIS).

    There the answer is always normalised, but the references only lose their punctuation, and
    only if they differ. So a reference with an article, a number word or a capital letter can
    never be met: use it to compare with published numbers of that code only.

    Args:
        predictions: One answer a sample.
        references: The answer of every annotator, the same ones repeated.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> vqa_accuracy_released(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[25.]])
    """

    def score(prediction: str, accepted: Sequence[str]) -> float:
        accepted = [*map(unify, accepted)]
        if len(set(accepted)) > 1:
            accepted = [strip_punctuation(reference) for reference in accepted]
        return _leave_one_out(normalise(prediction), accepted)

    return of_each(score, predictions, references)


def _leave_one_out(answer: str, accepted: Sequence[str]) -> float:
    agreeing = [reference == answer for reference in accepted]
    num_agreeing = sum(agreeing)
    return 100.0 * sum(min(1.0, (num_agreeing - own) / 3) for own in agreeing) / len(agreeing)
