"""Independent tuning: a copy of the whole connector for each modality.

Each starts from the base and sees its own modality alone, so nothing is forgotten and nothing is
passed on: the upper bound on transfer of a single modality, at N times the size.
"""

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import own_path


def learn(context: StageContext) -> Lessons:
    """Train a path that has a Q-Former and a projector of its own, copies of the shared ones."""
    sharing = [path.spec.name for path in context.model.paths if not path.spec.own]
    start = sharing[-1] if sharing else None
    own = ("qformer", "projector")
    yield context.lesson(own_path(context, own=own, queries_from=start))


METHOD = Method(learn, trains=("a connector of its own",))
