"""Experience replay (arXiv 1902.10486): sequential fine-tuning with samples of earlier modalities.

A replayed sample trains all that it passes, so the earlier paths' own parts too. A buffer that
holds everything makes the last stage joint training.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import buffer, mixture, tune_connector


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector and all paths on the new modality and the buffers."""
    options = task.recipe.method.replay
    assert options is not None  # the recipe fills it in
    trained = tune_connector(task, also=task.earlier)
    buffers = (buffer(task, name, options.samples) for name in task.earlier)
    yield Lesson(trained, mixture(task.sets(task.name), *buffers, weight=options.weight))
