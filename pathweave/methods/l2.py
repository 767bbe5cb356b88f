"""L2 regularisation towards the stage before, with weight averaging ("L2 Reg & WE" in the paper).

The average is that of ZSCL (arXiv 2303.06628): the mean of the weights before the stage and those
at the end of each inner epoch. It is taken beside the training, and the stage ends with it.
"""

from pydantic import Field

from pathweave.methods.averaging import as_buffers, clone, move_towards, proximal_step
from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import WHOLE_CONNECTOR, connector_weights, tune_connector
from pathweave.methods.settings import Positive, Settings, Strength


class L2(Settings):
    """L2 regularisation towards the stage before, with weight averaging."""

    strength: Strength = Field(
        1000.0, description="Pull towards the weights before the stage, per unit of learning rate."
    )
    inner_epoch: Positive | None = Field(
        20, description="Steps between two weights that the average takes in; null averages none."
    )


def learn(context: StageContext, options: L2) -> Lessons:
    """Tune the connector, pull it back at every step, and end with the average."""
    trained = tune_connector(context)
    weights = connector_weights(context.model)
    start, average = clone(weights), clone(weights)
    trained["average"] = as_buffers(average)
    steps, inner_epoch = context.training.steps, options.inner_epoch

    def after_step(step: int, lr: float) -> None:
        move_towards(weights, start, proximal_step(options.strength * lr))
        if inner_epoch and (step % inner_epoch == 0 or step == steps):
            number = -(-step // inner_epoch)
            move_towards(average, weights, 1 / (number + 1))

    yield context.lesson(trained, after_step=after_step)
    if inner_epoch:
        move_towards(weights, average, 1.0)


METHOD = Method(learn, L2, trains=WHOLE_CONNECTOR, shares=True)
