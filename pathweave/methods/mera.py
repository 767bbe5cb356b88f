r"""MERA: merge, then realign (arXiv 2503.07663).

The connector, which all modalities share, takes the place of that paper's language model, and what
each path has for itself that of its connectors. With the i-th modality the connector becomes
$\theta \leftarrow \frac{i-1}{i} \theta_{before} + \frac{1}{i} \theta_{tuned}$; then the paths' own
parts are tuned on a few samples of every modality, while the connector rests.
"""

from pydantic import Field

from pathweave.methods.averaging import clone, move_towards
from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import CONNECTOR_AND_PATHS, connector_weights, trainable, tune_connector
from pathweave.methods.replay_buffer import mixture, replay_buffer
from pathweave.methods.settings import Positive, PositiveFloat, Settings
from pathweave.model.base import freeze


class Mera(Settings):
    """Merge, then realign."""

    samples: Positive = Field(
        100, description="Training samples of every modality that the realignment learns from."
    )
    steps: Positive = Field(150, description="Optimiser steps of the realignment.")
    lr: PositiveFloat | None = Field(
        None, description="Peak learning rate of the realignment; null is that of the stage."
    )


def learn(context: StageContext, options: Mera) -> Lessons:
    """Tune the connector, merge it with what it was, and realign all paths with it."""
    model, learnt = context.model, (*context.earlier, context.name)
    trained = tune_connector(context)
    weights = connector_weights(model)
    start = clone(weights)
    yield context.lesson(trained)
    if not context.earlier:
        return
    move_towards(weights, start, 1 - 1 / len(learnt))
    freeze(model)
    paths = trainable({f"path/{name}": model.paths[name] for name in learnt})
    few = mixture(*(replay_buffer(context, name, options.samples) for name in learnt))
    changes = {"steps": options.steps, "lr": options.lr or context.training.lr}
    yield context.lesson(paths, few, context.training.model_copy(update=changes), part="realign")


METHOD = Method(learn, Mera, trains=CONNECTOR_AND_PATHS, shares=True, replays=True)
