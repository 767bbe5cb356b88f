"""EProj: a new projector for every modality, everything older frozen (arXiv 2311.16206).

Of that method this is the expansion, which is what the paper compares with; its choice of the
projector by the similarity of tasks is not needed, as the modality of an input is known.
"""

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import own_path


def learn(context: StageContext) -> Lessons:
    """Train a path that has a projector of its own, which starts as a copy of the shared one."""
    yield context.lesson(own_path(context, own=("projector",)))


METHOD = Method(learn, trains=("a projector of its own",))
