"""Share of predictions that equal an accepted answer."""

from collections.abc import Sequence

from pathweave.metrics.normalise import comparable
from pathweave.metrics.references import per_sample


@per_sample
def exact_match(prediction: str, accepted: Sequence[str]) -> float:
    """Return 100 for each prediction that equals a reference after normalisation, 0 for the others.

    What normalises to nothing ("A", "+") is compared as it is. An empty prediction is wrong.

    Args:
        prediction: The answer; called with one a sample.
        accepted: All accepted answers; called with those of each sample.

    Raises:
        ManifestError: If there is no sample, a sample without a reference, or the lengths differ.

    Example:
        >>> exact_match(["a shirt", "two"], [["shirt"], ["3", "4"]]).ravel()
        array([100.,   0.])
    """
    answer = comparable(prediction)
    return 100.0 * (answer != "" and answer in map(comparable, accepted))
