"""PathWeave: one new path per modality, everything earlier frozen (PathWeave, sec. 3)."""

from torch import nn

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import add_path, trainable
from pathweave.methods.settings import RunSettings
from pathweave.model.pathweave import PathWeave


def learn(context: StageContext) -> Lessons:
    """Train the path of the stage alone."""
    name = context.name
    yield context.lesson(expand(context.model, context.recipe, name, context.width(name)))


def expand(model: PathWeave, recipe: RunSettings, name: str, encoder_width: int) -> nn.ModuleDict:
    """Add the path of a stage and return what the stage trains; all else is frozen.

    A stage with ``training.connector`` trains Q-Former and projector together with a path that
    has no adapters: it makes the base. It goes on from the path of that name where the base came
    with one. Every other stage trains its path alone.

    Args:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        name: Modality of the stage.
        encoder_width: Width of the features that its encoder delivers.
    """
    if recipe.training_of(name).connector:
        path = add_path(model, recipe, name, encoder_width)
        return trainable({"path": path, "qformer": model.qformer, "projector": model.projector})
    earlier = recipe.predecessors_of(name)
    if earlier is None:
        earlier = tuple(path.spec.name for path in model.paths if path.spec.rank)
    rank = recipe.method.rank
    path = add_path(model, recipe, name, encoder_width, rank=rank, predecessors=earlier)
    return trainable({"path": path})


METHOD = Method(learn)
