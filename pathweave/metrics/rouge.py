"""ROUGE-L: the longest common subsequence of words of a caption and its references.

ROUGE: A Package for Automatic Evaluation of Summaries (ACL 2004), as coco-caption computes it: the
best precision and the best recall over the references, which may come from different ones, then
their F-measure with beta = 1.2.
"""

from collections import defaultdict
from collections.abc import Sequence

from pathweave.metrics.references import per_sample
from pathweave.metrics.tokens import tokenize

BETA = 1.2


@per_sample
def rouge_l(prediction: str, accepted: Sequence[str]) -> float:
    """Return ROUGE-L of each sample, in percent; that of the set is their mean.

    A caption without a word scores 0.

    Args:
        prediction: The caption; called with one a sample.
        accepted: All reference captions; called with those of each sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> rouge_l(["a cat sat"], [["a black cat sat", "birds"]]).round(1)
        array([[83.6]])
    """
    words, others = tokenize(prediction), [*map(tokenize, accepted)]
    common = [_longest_common_subsequence(words, other) for other in others]
    if not max(common):
        return 0.0
    precision = max(common) / len(words)
    recall = max(c / len(r) for c, r in zip(common, others, strict=True) if r)
    return 100.0 * (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Return its length, a row of the usual table at a time, as the zeros of an integer."""
    places: defaultdict[str, int] = defaultdict(int)
    for i, word in enumerate(first):
        places[word] |= 1 << i
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matched = row & places[word]
        row = ((row + matched) | (row - matched)) & everywhere
    return len(first) - row.bit_count()
