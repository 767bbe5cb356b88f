r"""WiSE-FT (arXiv 2109.01903), applied once per inner epoch as in the paper (alpha = 0.8).

$\theta \leftarrow (1 - \alpha)\,\theta_{before} + \alpha\,\theta_{tuned}$: alpha is the share of
the tuned weights, as in WiSE-FT. With alpha 0 the connector does not move, with 1 this is
sequential fine-tuning. Training goes on from the averaged weights.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import connector_weights, copied, move_towards, tune_connector


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector, and average it with what it was at the end of every inner epoch."""
    options = task.recipe.method.wise_ft
    assert options is not None  # the recipe fills it in
    trained = tune_connector(task)
    weights = connector_weights(task.model)
    start, steps = copied(weights), task.training.steps

    def after_step(step: int, lr: float) -> None:
        if step % options.inner_epoch == 0 or step == steps:
            move_towards(weights, start, 1 - options.alpha)

    yield Lesson(trained, task.sets(task.name), after_step=after_step)
