"""Independent tuning: a copy of the whole connector for each modality.

Each starts from the base and sees its own modality alone, so nothing is forgotten and nothing is
passed on: the upper bound on transfer of a single modality, at N times the size.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Method, StageContext
from pathweave.methods.path import add_path, trainable


def learn(context: StageContext) -> Iterator[Lesson]:
    """Train a path that has a Q-Former and a projector of its own, copies of the shared ones."""
    sharing = [path.spec.name for path in context.model.paths if not path.spec.own]
    path = add_path(
        context.model,
        context.recipe,
        context.name,
        context.width(context.name),
        own=("qformer", "projector"),
        queries_from=sharing[-1] if sharing else None,
    )
    yield context.lesson(trainable({"path": path}))


METHOD = Method(learn, trains=("a connector of its own",))
