"""References of the samples to score: checked, and taken one sample at a time."""

from collections.abc import Callable, Sequence

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


def of_each(
    measure: Callable[..., float | Sequence[float]],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *others: Sequence[object],
) -> Float[np.ndarray, "samples statistics"]:
    """Return one row a sample: what ``measure`` gives for its prediction and its references.

    Args:
        measure: From a prediction, its references and whatever else there is to numbers.
        predictions: One a sample.
        references: All accepted ones of each sample, in the same order.
        others: More arguments of each sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.
    """
    check_references(predictions, references)
    rows = zip(predictions, references, *others, strict=True)
    return np.array([np.atleast_1d(measure(*row)) for row in rows], float)
