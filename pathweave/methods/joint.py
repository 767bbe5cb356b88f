"""Joint tuning: one stage, after the one that makes the base, learns all modalities together.

It sees every modality as often as any other, the base's too, for as many steps as the stages that
it stands for would take together.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import mixture, tune_connector


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector and all paths on all modalities."""
    trained = tune_connector(task, also=task.earlier)
    sets = mixture(*(task.sets(name) for name in (*task.names, *task.earlier)))
    steps = sum(task.recipe.training_of(name).steps for name in task.names)
    yield Lesson(trained, sets, task.training.model_copy(update={"steps": steps}))
