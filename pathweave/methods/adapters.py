"""Incremental adapters: PathWeave without what connects its paths (PathWeave, table 5).

Every path has adapters of its own and uses no other's, so there are neither in-adapters nor gates.
"""

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import own_path


def learn(context: StageContext) -> Lessons:
    """Train a path of adapters without predecessors."""
    yield context.lesson(own_path(context, rank=context.recipe.method.rank))


METHOD = Method(learn)
