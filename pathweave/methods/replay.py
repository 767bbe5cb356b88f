"""Experience replay (arXiv 1902.10486): sequential fine-tuning with samples of earlier modalities.

A replayed sample trains all that it passes, so the earlier paths' own parts too. A buffer that
holds everything makes the last stage joint training.
"""

from pydantic import Field

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import CONNECTOR_AND_PATHS, tune_connector
from pathweave.methods.replay_buffer import mixture, replay_buffer
from pathweave.methods.settings import Positive, PositiveFloat, Settings


class Replay(Settings):
    """Experience replay."""

    samples: Positive = Field(100, description="Training samples kept of every earlier modality.")
    weight: PositiveFloat = Field(
        1.0,
        description="Share of the samples drawn of each earlier modality, relative to the new one.",
    )


def learn(context: StageContext, options: Replay) -> Lessons:
    """Tune the connector and all paths on the new modality and the buffers."""
    trained = tune_connector(context, also=context.earlier)
    buffers = (replay_buffer(context, name, options.samples) for name in context.earlier)
    new = context.sets(context.name)
    yield context.lesson(trained, mixture(new, *buffers, weight=options.weight))


METHOD = Method(learn, Replay, trains=CONNECTOR_AND_PATHS, shares=True, replays=True)
