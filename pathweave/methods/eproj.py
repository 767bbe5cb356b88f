"""EProj: a new projector for every modality, everything older frozen (arXiv 2311.16206).

Of that method this is the expansion, which is what the paper compares with; its choice of the
projector by the similarity of tasks is not needed, as the modality of an input is known.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Method, StageContext
from pathweave.methods.path import add_path, trainable


def learn(context: StageContext) -> Iterator[Lesson]:
    """Train a path that has a projector of its own, which starts as a copy of the shared one."""
    width = context.width(context.name)
    path = add_path(context.model, context.recipe, context.name, width, own=("projector",))
    yield context.lesson(trainable({"path": path}))


METHOD = Method(learn, trains=("a projector of its own",))
