"""Share of predictions that equal an accepted answer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pathweave.evaluate.normalise import comparable
from pathweave.evaluate.references import of_each


def exact_match(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Float[np.ndarray, "samples 1"]:
    """Return 100 for each prediction that equals a reference after normalisation, 0 for the others.

    What normalises to nothing ("A", "+") is compared as it is. An empty prediction is wrong.

    Args:
        predictions: One answer a sample.
        references: All accepted answers of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> exact_match(["a shirt", "two"], [["shirt"], ["3", "4"]]).ravel()
        array([100.,   0.])
    """

    def score(prediction: str, accepted: Sequence[str]) -> float:
        answer = comparable(prediction)
        return 100.0 * (answer != "" and answer in map(comparable, accepted))

    return of_each(score, predictions, references)
