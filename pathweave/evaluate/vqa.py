"""VQA accuracy: agreement of an answer with those of several annotators.

VQA: Visual Question Answering (arXiv 1505.00468). An answer that three other annotators gave is
right, one that two gave is worth 2/3. To compare with human accuracy, one annotator at a time is
left out: Acc = mean over j of min(1, (annotators other than j who gave the answer) / 3). A question
with only three annotators who agree scores 66.7 at most, in both functions here.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from pathweave.evaluate.exact_match import check_references
from pathweave.evaluate.normalise import normalise, strip_punctuation


def vqa_statistics(
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
        >>> vqa_statistics(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[50.]])
    """
    return _accuracies(predictions, references, _official)


def vqa_released_statistics(
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
        >>> vqa_released_statistics(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[25.]])
    """
    return _accuracies(predictions, references, _released)


def _accuracies(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    prepare: Callable[[str, list[str]], tuple[str, list[str]]],
) -> Float[np.ndarray, "samples 1"]:
    check_references(predictions, references)
    pairs = zip(predictions, references, strict=True)
    return np.array([[_leave_one_out(*prepare(p, list(r)))] for p, r in pairs])


def _official(prediction: str, accepted: list[str]) -> tuple[str, list[str]]:
    prediction, *accepted = (_one_line(text) for text in (prediction, *accepted))
    if len(set(accepted)) == 1:
        return prediction, accepted
    return normalise(prediction), [normalise(reference) for reference in accepted]


def _released(prediction: str, accepted: list[str]) -> tuple[str, list[str]]:
    if len(set(accepted)) > 1:
        accepted = [strip_punctuation(reference) for reference in accepted]
    return normalise(prediction), accepted


def _leave_one_out(answer: str, accepted: list[str]) -> float:
    agreeing = [reference == answer for reference in accepted]
    num_agreeing = sum(agreeing)
    return 100.0 * sum(min(1.0, (num_agreeing - own) / 3) for own in agreeing) / len(agreeing)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
