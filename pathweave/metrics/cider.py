"""CIDEr and CIDEr-D: agreement of captions with references, weighted by how telling each phrase is.

CIDEr: Consensus-based Image Description Evaluation (arXiv 1411.5726). Each caption becomes a vector
of n-gram counts times ln(samples / samples with that n-gram in a reference), for n of 1 to 4; its
score is ten times the mean over n and references of the cosine with the reference's vector.

``cider`` is that. ``cider_d`` is the variant D, in which the counts of a prediction are clipped to
those of the reference, and a cosine is multiplied by exp(-d^2 / (2 sigma^2)), where d is the
difference in length and sigma is 6. What coco-caption and pycocoevalcap print as "CIDEr" is
CIDEr-D, and so is what papers report; ``cider`` is the "CIDEr" of the authors' own program. As in
both programs, words are not stemmed (in the paper they are), and plain CIDEr too has the factor
ten (in the paper only D has). Both are here times 100, the scale that papers print.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.metrics.references import check_references
from pathweave.metrics.tokens import tokenize

MAX_N = 4
SIGMA = 6.0

Ngram = tuple[str, ...]


def ngrams(words: Sequence[str]) -> Counter[Ngram]:
    """Return how often each run of one to four words occurs.

    Example:
        >>> dict(ngrams(["a", "cat"]))
        {('a',): 1, ('cat',): 1, ('a', 'cat'): 1}
    """
    return Counter(
        tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1)
    )


def cider_d(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return the CIDEr-D of each caption, in [0, 1000]; that of the set is their mean.

    The document frequencies, hence the score of each caption, are those of this very set. A caption
    equal to its only reference, in a set where no n-gram occurs in two samples, scores 1000 if it
    has four words; usual scores are below 150. A set of one sample scores 0, for every phrase then
    occurs in every sample: evaluate at least a few dozen.

    Args:
        predictions: One caption a sample.
        references: All reference captions of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> cider_d(["a red car", "two dogs run"], [["a red car"], ["the dogs run"]]).round(1).T
        array([[750. , 291.7]])
    """
    return _scores(predictions, references, is_d=True)


def cider(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return the CIDEr of each caption, as ``cider_d`` does CIDEr-D."""
    return _scores(predictions, references, is_d=False)


def _scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], is_d: bool
) -> Float[np.ndarray, "samples 1"]:
    check_references(predictions, references)
    counts = [[ngrams(tokenize(reference)) for reference in accepted] for accepted in references]
    document_frequency: Counter[Ngram] = Counter()
    for accepted in counts:
        document_frequency.update(set().union(*accepted))
    log_documents = math.log(len(references))
    idf = {ngram: log_documents - math.log(df) for ngram, df in document_frequency.items()}
    scores = []
    for prediction, accepted in zip(predictions, counts, strict=True):
        vector = _Vector(ngrams(tokenize(prediction)), idf, log_documents)
        vectors = [_Vector(reference, idf, log_documents) for reference in accepted]
        similarities = [_similarity(vector, reference, is_d) for reference in vectors]
        scores.append(1000.0 * sum(similarities) / len(similarities))
    return np.array(scores)[:, None]


class _Vector:
    """Weights of the n-grams of a caption: one mapping, and one norm for each n."""

    def __init__(self, counts: Counter[Ngram], idf: dict[Ngram, float], unseen: float) -> None:
        self.weights = {n: count * idf.get(n, unseen) for n, count in counts.items()}
        squares = [0.0] * MAX_N
        for ngram, weight in self.weights.items():
            squares[len(ngram) - 1] += weight**2
        self.norms = [math.sqrt(square) for square in squares]
        # As in both programs, the length is the number of pairs of words.
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _similarity(prediction: _Vector, reference: _Vector, is_d: bool) -> float:
    dots = [0.0] * MAX_N
    for ngram, weight in prediction.weights.items():
        target = reference.weights.get(ngram, 0.0)
        dots[len(ngram) - 1] += (min(weight, target) if is_d else weight) * target
    cosines = [
        dot / (own * other) if own * other else 0.0
        for dot, own, other in zip(dots, prediction.norms, reference.norms, strict=True)
    ]
    difference = prediction.length - reference.length
    penalty = math.exp(-(difference**2) / (2 * SIGMA**2)) if is_d else 1.0
    return sum(cosines) / MAX_N * penalty
