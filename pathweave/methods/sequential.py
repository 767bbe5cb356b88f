"""Sequential full tuning: the whole connector is tuned on one modality after another.

The "Continual-FT" of the paper. Queries, input norm and projection stay with each modality, as in
all methods here and in the paper; Q-Former and projector are shared, and forget.
"""

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import WHOLE_CONNECTOR, tune_connector


def learn(context: StageContext) -> Lessons:
    """Train a path without adapters, and the connector."""
    yield context.lesson(tune_connector(context))


METHOD = Method(learn, trains=WHOLE_CONNECTOR, shares=True)
