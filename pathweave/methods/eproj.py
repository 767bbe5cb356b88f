"""EProj: a new projector for every modality, everything older frozen (arXiv 2311.16206).

Of that method this is the expansion, which is what the paper compares with; its choice of the
projector by the similarity of tasks is not needed, as the modality of an input is known.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import add_path, trainable


def learn(task: Task) -> Iterator[Lesson]:
    """Train a path that has a projector of its own, which starts as a copy of the shared one."""
    width = task.width(task.name)
    path = add_path(task.model, task.recipe, task.name, width, own=("projector",))
    yield Lesson(trainable({"path": path}), task.sets(task.name))
