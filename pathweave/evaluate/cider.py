"""CIDEr-D: agreement of captions with references, weighted by how telling each phrase is.

CIDEr: Consensus-based Image Description Evaluation (arXiv 1411.5726), in its D variant, as the
usual program computes it: n-grams of one to four words, counts of a prediction clipped to those of
the reference, a Gaussian penalty of standard deviation 6 on the difference in length, document
frequencies from the references of the evaluated set. Only the tokenizer differs: the usual program
calls a Java one; the one here (``TOKENIZER``) agrees with it on plain captions.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from pathweave.evaluate.exact_match import check_references

TOKENIZER = "words-1: lower-case runs of letters, digits and inner apostrophes, dots, hyphens"
MAX_N = 4
SIGMA = 6.0

_WORD = re.compile(r"\w+(?:(?:[-.']|(?<=\d),(?=\d))\w+)*")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))$")

Ngram = tuple[str, ...]


def cider_d(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean CIDEr-D of a set of captions, on the scale papers print (100 = 1.0).

    The usual program returns a hundredth of it. A caption equal to its only reference, in a set
    where no n-gram occurs in two samples, scores 1000; usual scores are below 150. A set of one
    sample scores 0, for every phrase then occurs in every sample: evaluate at least a few dozen.

    Args:
        predictions: One caption a sample.
        references: All reference captions of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> round(cider_d(["a red car", "two dogs run"], [["a red car"], ["the dogs run"]]), 1)
        520.8
    """
    check_references(predictions, references)
    counts = [[_ngrams(reference) for reference in accepted] for accepted in references]
    document_frequency: Counter[Ngram] = Counter()
    for accepted in counts:
        document_frequency.update(set().union(*accepted))
    weigh = _Weights(document_frequency, len(references))
    total = 0.0
    for prediction, accepted in zip(predictions, counts, strict=True):
        vector = weigh(_ngrams(prediction))
        total += sum(_similarity(vector, weigh(reference)) for reference in accepted) / len(
            accepted
        )
    # Ten is part of the definition of CIDEr-D, a hundred of the printed scale.
    return 100.0 * 10.0 * total / len(predictions)


def tokenize(caption: str) -> list[str]:
    """Return the words of a caption, lower-case, without punctuation.

    Example:
        >>> tokenize("A man's T-shirt, isn't it?")
        ['a', 'man', "'s", 't-shirt', 'is', "n't", 'it']
    """
    words: list[str] = []
    for word in _WORD.findall(caption.lower()):
        words.extend(part for part in _CLITIC.split(word) if part)
    return words


class _Vector:
    """Weights of the n-grams of a caption: one mapping and one norm for each n."""

    def __init__(self, counts: Counter[Ngram], idf: dict[Ngram, float]) -> None:
        self.weights = {ngram: count * idf[ngram] for ngram, count in counts.items()}
        squares = [0.0] * MAX_N
        for ngram, weight in self.weights.items():
            squares[len(ngram) - 1] += weight**2
        self.norms = [math.sqrt(square) for square in squares]
        # As in the usual program, the length is the number of pairs of words.
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)


class _Weights:
    def __init__(self, document_frequency: Counter[Ngram], num_documents: int) -> None:
        self._frequency = document_frequency
        self._log_documents = math.log(num_documents)

    def __call__(self, counts: Counter[Ngram]) -> _Vector:
        idf = {n: self._log_documents - math.log(max(1, self._frequency[n])) for n in counts}
        return _Vector(counts, idf)


def _similarity(prediction: _Vector, reference: _Vector) -> float:
    dots = [0.0] * MAX_N
    for ngram, weight in prediction.weights.items():
        target = reference.weights.get(ngram, 0.0)
        dots[len(ngram) - 1] += min(weight, target) * target
    cosines = [
        dot / (own * other) if own * other else 0.0
        for dot, own, other in zip(dots, prediction.norms, reference.norms, strict=True)
    ]
    difference = prediction.length - reference.length
    return sum(cosines) / MAX_N * math.exp(-(difference**2) / (2 * SIGMA**2))


def _ngrams(caption: str) -> Counter[Ngram]:
    words = tokenize(caption)
    return Counter(
        tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1)
    )
