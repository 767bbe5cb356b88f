"""VQA accuracy: agreement of an answer with those of several annotators.

VQA: Visual Question Answering (arXiv 1505.00468). An answer that three other annotators gave is
right, one that two gave is worth 2/3. To compare with human accuracy, one annotator at a time is
left out: Acc = mean over j of min(1, (annotators other than j who gave the answer) / 3). A question
with only three annotators who agree scores 66.7 at most, in both functions here.
"""

from collections.abc import Sequence

from pathweave.metrics.normalise import comparable, normalise, plain, strip_punctuation, unify
from pathweave.metrics.references import per_sample


@per_sample
def vqa_accuracy(prediction: str, accepted: Sequence[str]) -> float:
    """Return the accuracy of each answer, in percent, as the official evaluation computes it.

    Answer and references are normalised if the references differ, and compared as they are, but
    for space around them, if the annotators all wrote the same.

    Args:
        prediction: The answer; called with one a sample.
        accepted: The answer of every annotator, the same ones repeated; called with those of each
            sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> vqa_accuracy(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[50.]])
    """
    answer, given = plain(prediction), [*map(plain, accepted)]
    if len(set(given)) > 1:
        answer, given = comparable(answer), [*map(comparable, given)]
    return _leave_one_out(answer, given)


@per_sample
def vqa_accuracy_released(prediction: str, accepted: Sequence[str]) -> float:
    """Return the accuracy of each answer as the released code computes it (that of LAVIS).

    There the answer is always normalised, but the references only lose their punctuation, and
    only if they differ. So a reference with an article, a number word or a capital letter can
    never be met: use it to compare with published numbers of that code only.

    Args:
        prediction: The answer; called with one a sample.
        accepted: The answer of every annotator, the same ones repeated; called with those of each
            sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> vqa_accuracy_released(["Two."], [["2", "two", "two dogs", "3"]]).round(1)
        array([[25.]])
    """
    given = [*map(unify, accepted)]
    if len(set(given)) > 1:
        given = [*map(strip_punctuation, given)]
    return _leave_one_out(normalise(prediction), given)


def _leave_one_out(answer: str, accepted: Sequence[str]) -> float:
    agreeing = [reference == answer for reference in accepted]
    shares = [min(1.0, (sum(agreeing) - own) / 3) for own in agreeing]
    return 100.0 * sum(shares) / len(shares)
