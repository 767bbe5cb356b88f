"""References of the samples to score: checked, and taken one sample at a time."""

from collections.abc import Callable, Sequence
from functools import wraps

import numpy as np
from jaxtyping import Float

from pathweave.errors import ManifestError


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


def per_sample(
    measure: Callable[..., float | Sequence[float]],
) -> Callable[..., Float[np.ndarray, "samples statistics"]]:
    """Return the function of a whole set that gives one row a sample.

    It takes the predictions, the references of each, and where ``measure`` takes more also that of
    each sample, all in the same order. It raises ManifestError if there is no sample, a sample
    without a reference, or the lengths differ.

    Args:
        measure: From a prediction, its references and whatever else there is to numbers.

    Example:
        >>> per_sample(lambda prediction, references: prediction in references)(["a"], [["a"]])
        array([[1.]])
    """

    @wraps(measure)
    def of_set(
        predictions: Sequence[str], references: Sequence[Sequence[str]], *others: Sequence[object]
    ) -> Float[np.ndarray, "samples statistics"]:
        check_references(predictions, references)
        filled = [other or [()] * len(predictions) for other in others]
        rows = zip(predictions, references, *filled, strict=True)
        return np.array([np.atleast_1d(measure(*row)) for row in rows], float)

    return of_set
