"""A method of one's own: first the way in, then the path (LP-FT, arXiv 2202.10054).

Adapters that start at zero learn from gradients of an input projection that is random. So the
projection and the queries are trained alone for a while, and the whole path after that.
"""

from pydantic import Field

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import trainable
from pathweave.methods.pathweave import expand
from pathweave.methods.settings import Settings


class ProbeFirst(Settings):
    """Options; in a recipe they stand under ``method.own``."""

    share: float = Field(0.2, gt=0, lt=1, description="Share of the steps for the way in.")


def learn(context: StageContext, options: ProbeFirst) -> Lessons:
    """Train the path's input alone, then the path."""
    whole = expand(context.model, context.recipe, context.name, context.width(context.name))
    path, training = context.model.paths[context.name], context.training
    first = max(1, round(options.share * training.steps))
    rest = max(1, training.steps - first)
    whole.requires_grad_(False)
    inputs = trainable({"norm": path.input_norm, "projection": path.input_projection})
    yield context.lesson(inputs, training=training.model_copy(update={"steps": first}))
    whole.requires_grad_(True)
    yield context.lesson(whole, training=training.model_copy(update={"steps": rest}), part="path")


METHOD = Method(learn, ProbeFirst)
