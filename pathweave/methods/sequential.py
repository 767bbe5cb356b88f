"""Sequential full tuning: the whole connector is tuned on one modality after another.

The "Continual-FT" of the paper. Queries, input norm and projection stay with each modality, as in
all methods here and in the paper; Q-Former and projector are shared, and forget.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import tune_connector


def learn(task: Task) -> Iterator[Lesson]:
    """Train a path without adapters, and the connector."""
    yield Lesson(tune_connector(task), task.sets(task.name))
