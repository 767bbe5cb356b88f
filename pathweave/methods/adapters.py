"""Incremental adapters: PathWeave without what connects its paths (PathWeave, table 5).

Every path has adapters of its own and uses no other's, so there are neither in-adapters nor gates.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Method, StageContext
from pathweave.methods.path import add_path, trainable


def learn(context: StageContext) -> Iterator[Lesson]:
    """Train a path of adapters without predecessors."""
    rank, width = context.recipe.method.rank, context.width(context.name)
    path = add_path(context.model, context.recipe, context.name, width, rank=rank)
    yield context.lesson(trainable({"path": path}))


METHOD = Method(learn)
