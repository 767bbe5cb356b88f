"""The cost of every stage of a recipe, and of a path with more and more predecessors."""

from dataclasses import replace

import torch
from torch import nn

from pathweave.errors import RecipeError
from pathweave.estimate.costs import Estimate, Growth, Memory, Operations, StageCost, Trained
from pathweave.estimate.encoders import features_read
from pathweave.estimate.flops import connector_flops, folding_flops
from pathweave.estimate.language_model import LanguageModel
from pathweave.estimate.memory import (
    connector_activations,
    fused_bytes,
    gradient_bytes,
    optimizer_bytes,
    weight_bytes,
)
from pathweave.estimate.network import Features
from pathweave.estimate.shapes import shape_model
from pathweave.estimate.workload import Workload
from pathweave.methods.pathweave import expand
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.recipe.schema import Recipe

BITS = {"8bit": 8, "4bit": 4}


def estimate_recipe(
    recipe: Recipe,
    modalities: int | None = None,
    batch_size: int | None = None,
    text: int = 16,
    answer: int = 16,
) -> Estimate:
    """Return what every stage of a recipe costs, from shapes alone.

    Args:
        recipe: The recipe.
        modalities: Number of paths up to which growth is shown; None is the number of stages.
        batch_size: Samples held at once; None is what the recipe says.
        text: Tokens of cue and question.
        answer: Tokens of the answer, trained on and generated.

    Raises:
        RecipeError: If the base or an encoder is unknown, or the method is another.
        FetchError: If a directory lacks its configuration.
        PathError: If a directory of a base is damaged.
    """
    if recipe.method.name != "pathweave":
        raise RecipeError(
            f"estimate must be given method pathweave, got {recipe.method.name}; what others "
            "cost beside it is in docs/methods.md"
        )
    model = shape_model(recipe)
    stages = []
    for name in recipe.curriculum:
        features = features_read(recipe, name)
        path, modules = _taken(model, recipe, name, features.width)
        load = Workload(
            units=features.units,
            tokens=features.tokens,
            queries=path.spec.num_queries,
            text=text,
            answer=answer,
            reads_text=model.qformer.shape.vocab_size is not None,
        )
        training = recipe.training_of(name)
        size = batch_size or training.micro_batch or training.batch_size
        llm = LanguageModel.of(model.llm)
        stages.append(_stage(model, path, modules, features, load, size, llm, recipe.quantise))
    return Estimate(
        recipe=recipe.name,
        base=recipe.base,
        llm_parameters=_size(model.llm),
        connector_parameters=_size(model.qformer) + _size(model.projector),
        stages=tuple(stages),
        growth=_growth(model, recipe, modalities or len(recipe.curriculum), stages[-1].load),
    )


def _taken(
    model: PathWeave, recipe: Recipe, name: str, width: int
) -> tuple[ModalPath, nn.ModuleDict]:
    """Return the path of a stage and what the stage trains: nothing if the base came with it."""
    if name in model.paths and not recipe.training_of(name).connector:
        return model.paths[name], nn.ModuleDict()
    with torch.device("meta"):
        modules = expand(model, recipe, name, width)
    return model.paths[name], modules


def _stage(
    model: PathWeave,
    path: ModalPath,
    modules: nn.ModuleDict,
    features: Features,
    load: Workload,
    batch_size: int,
    llm: LanguageModel,
    quantise: str | None,
) -> StageCost:
    trained = count_trained(path, modules)
    needed = path.count()["queries"] + path.count()["input"]
    held = {
        "llm": weight_bytes(model.llm) - _saved_bytes(llm, quantise),
        "encoder": features.weight_bytes,
        "connector": sum(map(weight_bytes, (model.qformer, model.projector, model.paths))),
    }
    training = step = None
    if len(modules):
        kept = connector_activations(model, path, load) + llm.activations(load)
        training = Memory(
            **held,
            gradients=gradient_bytes(trained.total),
            optimizer=optimizer_bytes(trained.total),
            activations=batch_size * kept + fused_bytes(model, path),
        )
        folding = folding_flops(model, path).total // batch_size
        step = Operations(
            encoder=features.flops,
            connector=connector_flops(model, path, load, training=True).total + folding,
            llm=llm.training(load).total,
        )
    return StageCost(
        modality=path.spec.name,
        features=features,
        load=load,
        batch_size=batch_size,
        trained=trained,
        full_tuning=_size(model.qformer) + _size(model.projector) + needed,
        feature_bytes=features.cached_bytes,
        training=training,
        inference=Memory(**held, keys_and_values=batch_size * llm.keys_and_values(load)),
        step=step,
        answer=Operations(
            encoder=features.flops,
            connector=_forward(model, path, load),
            llm=llm.prefill(load),
            decoding=llm.decode(load),
        ),
    )


def count_trained(path: ModalPath, modules: nn.ModuleDict) -> Trained:
    """Count what a stage trains: its path, and whatever else is among its modules."""
    if not len(modules):
        return Trained()
    counts = path.count()
    adapter = path.adapter(PROJECTOR_SITE)
    at_projector = 0 if adapter is None else _size(adapter)
    return Trained(
        adapters=counts["adapters"] - at_projector,
        in_adapters=counts["in_adapters"],
        gates=counts["gates"],
        projector_adapter=at_projector,
        queries=counts["queries"],
        input_norm=_size(path.input_norm),
        input_projection=_size(path.input_projection),
        connector=_size(modules) - _size(path),
    )


def _growth(
    model: PathWeave, recipe: Recipe, modalities: int, load: Workload
) -> tuple[Growth, ...]:
    last = replace(model.paths[recipe.curriculum[-1]].spec, predecessors=(), rank=0, name="bare")
    grown: list[Growth] = []
    total = 0
    with torch.device("meta"):
        alone = PathWeave(replace(model.base, ready_paths=()))
        lowest = _forward(alone, alone.paths.expand(last), load)
        for number in range(1, modalities + 1):
            earlier = tuple(alone.paths.names[1:])
            spec = replace(
                last, name=f"path_{number}", rank=recipe.method.rank, predecessors=earlier
            )
            path = alone.paths.expand(spec)
            total += _size(path)
            counts = path.count()
            grown.append(
                Growth(
                    modalities=number,
                    in_adapters=counts["in_adapters"],
                    gates=counts["gates"],
                    path=_size(path),
                    all_paths=total,
                    connector_flops=_forward(alone, path, load) / lowest,
                )
            )
    return tuple(grown)


def _forward(model: PathWeave, path: ModalPath, load: Workload) -> int:
    return connector_flops(model, path, load, training=False).forward


def _saved_bytes(llm: LanguageModel, quantise: str | None) -> int:
    """Return the bytes that quantised linear layers do not take (their scales are left out)."""
    if quantise is None:
        return 0
    return llm.matrices * llm.bytes_each - llm.matrices * BITS[quantise] // 8


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
