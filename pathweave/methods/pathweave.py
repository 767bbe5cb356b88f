"""PathWeave: one new path per modality, everything earlier frozen (PathWeave, sec. 3)."""

from torch import nn

from pathweave.bases.base import freeze
from pathweave.config import Recipe
from pathweave.model import PathWeave
from pathweave.paths import Path, PathSpec


def expand(model: PathWeave, recipe: Recipe, name: str, encoder_width: int) -> nn.ModuleDict:
    """Add the path of a stage and return what the stage trains; all else is frozen.

    A stage with ``training.connector`` trains Q-Former and projector together with a path that
    has no adapters: it makes the base. It goes on from the path of that name where the base came
    with one. Every other stage trains its path alone.

    Args:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        name: Modality of the stage.
        encoder_width: Width of the features its encoder delivers.
    """
    method = recipe.method
    connector = recipe.training_of(name).connector
    earlier = recipe.modalities[name].predecessors
    if earlier is None:
        earlier = tuple(path.spec.name for path in model.paths if path.spec.rank)
    spec = PathSpec(
        name=name,
        encoder_width=encoder_width,
        num_queries=method.queries,
        predecessors=() if connector else earlier,
        rank=0 if connector else method.rank,
        sites=method.sites,
        gate=method.gate,
        top_k=method.top_k,
        in_adapter=method.in_adapter,
        plain_sites=method.plain_sites,
    )
    freeze(model)
    if name in model.paths:
        path = model.paths[name]
    else:
        path = model.paths.expand(spec, queries_from=_previous(model, recipe, name))
    trained: dict[str, nn.Module] = {"path": path}
    if connector:
        trained |= {"qformer": model.qformer, "projector": model.projector}
    modules = nn.ModuleDict(trained)
    modules.requires_grad_(True)
    return modules


def _previous(model: PathWeave, recipe: Recipe, name: str) -> str | None:
    """Return the path of the stage before, else the last that the base came with, else None."""
    stages = recipe.curriculum[: recipe.curriculum.index(name)]
    earlier = [stage for stage in stages if stage in model.paths] or model.paths.names
    return earlier[-1] if earlier else None


def finish(model: PathWeave, name: str) -> Path:
    """Freeze the path of a finished stage, and the connector with it."""
    freeze(model)
    return model.paths[name]
