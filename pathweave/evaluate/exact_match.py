"""Share of predictions that equal an accepted answer."""

from collections.abc import Sequence

from pathweave.errors import ManifestError
from pathweave.evaluate.normalise import normalise


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return how many predictions equal any of their references after normalisation, in percent.

    An empty prediction is wrong, also where a reference is empty after normalisation.

    Args:
        predictions: One answer a sample.
        references: All accepted answers of each sample, in the same order.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> exact_match(["a shirt", "two"], [["shirt"], ["3", "4"]])
        50.0
    """
    check_references(predictions, references)
    num_right = 0
    for prediction, accepted in zip(predictions, references, strict=True):
        answer = normalise(prediction)
        num_right += answer != "" and answer in {normalise(reference) for reference in accepted}
    return 100.0 * num_right / len(predictions)


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
