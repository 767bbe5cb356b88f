"""Incremental adapters: PathWeave without what connects its paths (PathWeave, table 5).

Every path has adapters of its own and uses no other's, so there are neither in-adapters nor gates.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import add_path, trainable


def learn(task: Task) -> Iterator[Lesson]:
    """Train a path of adapters without predecessors."""
    rank, width = task.recipe.method.rank, task.width(task.name)
    path = add_path(task.model, task.recipe, task.name, width, rank=rank)
    yield Lesson(trainable({"path": path}), task.sets(task.name))
