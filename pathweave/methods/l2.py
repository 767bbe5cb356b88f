"""L2 regularisation towards the stage before, with weight averaging ("L2 Reg & WE" in the paper).

The average is that of ZSCL (arXiv 2303.06628): the mean of the weights before the stage and those
at the end of each inner epoch. It is taken beside the training, and the stage ends with it.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import (
    connector_weights,
    copied,
    kept,
    move_towards,
    pulled,
    tune_connector,
)


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector, pull it back at every step, and end with the average."""
    options = task.recipe.method.l2
    assert options is not None  # the recipe fills it in
    trained = tune_connector(task)
    weights = connector_weights(task.model)
    start, average = copied(weights), copied(weights)
    trained["average"] = kept(average)
    steps, inner_epoch = task.training.steps, options.inner_epoch

    def after_step(step: int, lr: float) -> None:
        move_towards(weights, start, pulled(options.strength * lr))
        if inner_epoch and (step % inner_epoch == 0 or step == steps):
            number = -(-step // inner_epoch)
            move_towards(average, weights, 1 / (number + 1))

    yield Lesson(trained, task.sets(task.name), after_step=after_step)
    if inner_epoch:
        move_towards(weights, average, 1.0)
