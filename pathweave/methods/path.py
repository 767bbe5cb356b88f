"""The path of a stage, and the connector: adding the one, tuning the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pathweave.methods.lesson import StageContext
from pathweave.methods.settings import RunSettings
from pathweave.model.base import freeze
from pathweave.model.paths import ModalPath, PathSpec
from pathweave.model.pathweave import PathWeave

# Hosts of a path that has the whole connector for itself, unless a recipe names others.
ATTENTION = ("llm/*/self_attn/*",)
# What a stage trains, for dry runs.
WHOLE_CONNECTOR = ("Q-Former", "projector")
OWN_CONNECTOR = "Q-Former and projector of its own"
CONNECTOR_AND_PATHS = (*WHOLE_CONNECTOR, "what earlier paths have for themselves")


def add_path(
    model: PathWeave,
    recipe: RunSettings,
    name: str,
    encoder_width: int,
    rank: int = 0,
    queries_from: str | None = None,
    **fields: Any,  # noqa: ANN401 (those of PathSpec)
) -> ModalPath:
    """Freeze the model, add the path of a stage, and return it.

    Where the base came with a path of that name, that one is returned.

    Args:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        name: Modality of the stage.
        encoder_width: Width of the features its encoder delivers.
        rank: Bottleneck width of its adapters; 0 adds none.
        queries_from: Path whose queries its own start from; None is the one before it, or for a
            path that the method gives parts of its own none.
        **fields: What else of its ``PathSpec`` the method decides: ``predecessors``, ``own``.
    """
    freeze(model)
    if name in model.paths:
        return model.paths[name]
    if queries_from is None and "own" not in fields:
        # The path of the stage before, else the last that the base came with.
        stages = recipe.curriculum[: recipe.curriculum.index(name)]
        earlier = [stage for stage in stages if stage in model.paths] or model.paths.names
        queries_from = earlier[-1] if earlier else None
    spec = spec_of(model, recipe, name, encoder_width, rank, **fields)
    return model.paths.expand(spec, queries_from)


def spec_of(
    model: PathWeave,
    recipe: RunSettings,
    name: str,
    encoder_width: int,
    rank: int,
    **fields: Any,  # noqa: ANN401 (those of PathSpec)
) -> PathSpec:
    """Return what the path of a stage is made of; see ``add_path``."""
    method = recipe.method
    for field in ("sites", "gate", "top_k", "in_adapter", "plain_sites", "plain_rank", "scope"):
        fields[field] = getattr(method, field)
    if not model.base.shares_connector:
        fields["own"] = tuple(model.paths.parts)
        if fields["sites"] == ("*",):
            fields["sites"] = ATTENTION
    fields |= recipe.input_of(name)
    return PathSpec(name, encoder_width, num_queries=method.queries, rank=rank, **fields)


def trainable(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return modules as what a lesson trains."""
    trained = nn.ModuleDict(modules)
    trained.requires_grad_(True)
    return trained


def own_path(context: StageContext, **options: Any) -> nn.ModuleDict:  # noqa: ANN401
    """Add the path of a stage, with options of ``add_path``, and train it alone."""
    model, name = context.model, context.name
    path = add_path(model, context.recipe, name, context.width(name), **options)
    return trainable({"path": path})


def tune_connector(context: StageContext, also: Sequence[str] = ()) -> nn.ModuleDict:
    """Add a path without adapters for each modality of a stage, and train all of the connector.

    Args:
        context: The stage.
        also: Earlier paths that are trained too.
    """
    model = context.model
    for name in context.names:
        add_path(model, context.recipe, name, context.width(name))
    own, others = model.paths[context.name], (*context.names[1:], *also)
    parts = {"path": own, "qformer": model.qformer, "projector": model.projector}
    return trainable({**parts, **{f"path/{name}": model.paths[name] for name in others}})


def connector_weights(model: PathWeave) -> dict[str, nn.Parameter]:
    """Return the parameters of Q-Former and projector, by the names under which they are saved."""
    parts = {"qformer": model.qformer, "projector": model.projector}
    return {
        f"{part}.{name}": weight
        for part, module in parts.items()
        for name, weight in module.state_dict(keep_vars=True).items()
        if isinstance(weight, nn.Parameter)
    }
