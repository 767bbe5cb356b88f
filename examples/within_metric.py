"""A metric of one's own: how many numbers are answered to within a tenth."""

import numpy as np

from pathweave.metrics import Metric


def within(predictions, references):
    """Return 100 for each answer that is near one of its references, else 0."""
    return np.array(
        [
            [100.0 * any(map(near, [answer] * len(known), known))]
            for answer, known in zip(predictions, references, strict=True)
        ]
    )


def near(answer, reference):
    """Return whether two texts are numbers that differ by a tenth of the second at most."""
    try:
        return abs(float(answer) - float(reference)) <= 0.1 * abs(float(reference))
    except ValueError:
        return False


WITHIN = Metric("within", within)
