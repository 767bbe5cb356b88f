"""BLEU-1 to BLEU-4 of a whole set of captions.

BLEU: a Method for Automatic Evaluation of Machine Translation (ACL 2002), as coco-caption computes
it: counts summed over the set before anything is divided, n-grams clipped to the largest count in
any one reference, for each sample the reference length nearest to the prediction's (the shorter of
two equally near), no smoothing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.metrics.cider import MAX_N, Ngram, ngrams
from pathweave.metrics.references import per_sample
from pathweave.metrics.tokens import tokenize

# As in coco-caption, so that 0 / 0 is 1e-6, hardly more than 0.
_TINY, _SMALL = 1e-15, 1e-9


@per_sample
def bleu_statistics(prediction: str, accepted: Sequence[str]) -> list[int]:
    """Return the counts of each sample that BLEU is computed from.

    They are: n-grams of the prediction that are also in a reference, for n of 1 to 4; n-grams of
    the prediction; words of the prediction; words of the nearest reference.

    Args:
        prediction: The caption; called with one a sample.
        accepted: All reference captions; called with those of each sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.
    """
    words = tokenize(prediction)
    most: dict[Ngram, int] = {}
    lengths = []
    for reference in map(tokenize, accepted):
        lengths.append(len(reference))
        for ngram, count in ngrams(reference).items():
            most[ngram] = max(most.get(ngram, 0), count)
    matched = [0] * MAX_N
    for ngram, count in ngrams(words).items():
        matched[len(ngram) - 1] += min(count, most.get(ngram, 0))
    proposed = [max(0, len(words) - n) for n in range(MAX_N)]
    nearest = min(lengths, key=lambda length: (abs(length - len(words)), length))
    return [*matched, *proposed, len(words), nearest]


def bleu(totals: Float[np.ndarray, "sets 10"], max_n: int = MAX_N) -> Float[np.ndarray, " sets"]:
    """Return BLEU, in percent, from statistics summed over the samples of each set.

    BLEU-N = min(1, exp(1 - r / c)) (prod_{n <= N} p_n)^(1 / N).

    Args:
        totals: Sums of what ``bleu_statistics`` gives.
        max_n: N, the length of the longest n-grams, in [1, 4].

    Example:
        >>> counts = bleu_statistics(["a cat sits on the mat"], [["the cat sits on a mat"]])
        >>> bleu(counts, max_n=2).round(1)
        array([63.2])
    """
    matched, proposed = totals[:, :max_n], totals[:, MAX_N : MAX_N + max_n]
    precision = ((matched + _TINY) / (proposed + _SMALL)).prod(-1) ** (1 / max_n)
    ratio = (totals[:, 8] + _TINY) / (totals[:, 9] + _SMALL)
    return 100.0 * precision * np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
