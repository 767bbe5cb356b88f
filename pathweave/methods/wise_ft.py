r"""WiSE-FT (arXiv 2109.01903), applied once per inner epoch as in the paper (alpha = 0.8).

$\theta \leftarrow (1 - \alpha)\,\theta_{before} + \alpha\,\theta_{tuned}$: alpha is the share of
the tuned weights, as in WiSE-FT. With alpha 0 the connector does not move, with 1 this is
sequential fine-tuning. Training goes on from the averaged weights.
"""

from pydantic import Field

from pathweave.methods.averaging import clone, move_towards
from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import WHOLE_CONNECTOR, connector_weights, tune_connector
from pathweave.methods.settings import Positive, Settings


class WiseFt(Settings):
    """WiSE-FT: weights between those before the stage and the tuned ones."""

    alpha: float = Field(
        0.8, ge=0, le=1, description="Share of the tuned weights; the rest is as before the stage."
    )
    inner_epoch: Positive = Field(20, description="Steps between two averagings.")


def learn(context: StageContext, options: WiseFt) -> Lessons:
    """Tune the connector, and average it with what it was at the end of every inner epoch."""
    trained = tune_connector(context)
    weights = connector_weights(context.model)
    start, steps = clone(weights), context.training.steps

    def after_step(step: int, lr: float) -> None:
        if step % options.inner_epoch == 0 or step == steps:
            move_towards(weights, start, 1 - options.alpha)

    yield context.lesson(trained, after_step=after_step)


METHOD = Method(learn, WiseFt, trains=WHOLE_CONNECTOR, shares=True)
