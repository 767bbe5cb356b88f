"""Share of predictions that equal an accepted answer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.errors import ManifestError
from pathweave.evaluate.normalise import normalise


def exact_match_statistics(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return 100 for each prediction that equals a reference after normalisation, 0 for the others.

    An empty prediction is wrong, also where a reference is empty after normalisation.

    Args:
        predictions: One answer a sample.
        references: All accepted answers of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.
    """
    check_references(predictions, references)
    scores = []
    for prediction, accepted in zip(predictions, references, strict=True):
        answer = normalise(prediction)
        right = answer != "" and answer in {normalise(reference) for reference in accepted}
        scores.append(100.0 * right)
    return np.array(scores)[:, None]


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return how many predictions equal any of their references after normalisation, in percent.

    Args:
        predictions: One answer a sample.
        references: All accepted answers of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> exact_match(["a shirt", "two"], [["shirt"], ["3", "4"]])
        50.0
    """
    return float(exact_match_statistics(predictions, references).mean())


def check_references(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Check that there are samples to score, each with a prediction and a reference.

    Raises:
        ManifestError: If not.
    """
    if len(predictions) != len(references) or not predictions:
        raise ManifestError(
            f"predictions and references must be as many, and at least 1, got {len(predictions)} "
            f"and {len(references)}; evaluate a test set with samples"
        )
    for i, accepted in enumerate(references):
        if isinstance(accepted, str) or not accepted:
            raise ManifestError(
                f"sample {i} must have a list of references to be scored, got {accepted!r:.60}; "
                "add 'references' or an assistant turn to its manifest"
            )
