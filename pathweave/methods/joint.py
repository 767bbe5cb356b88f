"""Joint tuning: one stage, after the one that makes the base, learns all modalities together.

It sees every modality as often as any other, the base's too, for as many steps as the stages that
it stands for would take together.
"""

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import CONNECTOR_AND_PATHS, tune_connector
from pathweave.methods.replay_buffer import mixture


def learn(context: StageContext) -> Lessons:
    """Tune the connector and all paths on all modalities."""
    trained = tune_connector(context, also=context.earlier)
    sets = mixture(*(context.sets(name) for name in (*context.names, *context.earlier)))
    steps = sum(context.recipe.training_of(name).steps for name in context.names)
    yield context.lesson(trained, sets, context.training.model_copy(update={"steps": steps}))


METHOD = Method(learn, trains=CONNECTOR_AND_PATHS, shares=True, replays=True, at_once=True)
