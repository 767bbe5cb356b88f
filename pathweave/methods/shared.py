"""What several methods do: adding a path, tuning the connector, averaging weights, replaying."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pathweave.methods.lesson import Samples, Source, Task
from pathweave.model.base import freeze
from pathweave.model.paths import ModalPath, PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.recipe.schema import Recipe

Amount = TypeVar("Amount", float, Tensor)


def add_path(
    model: PathWeave,
    recipe: Recipe,
    name: str,
    encoder_width: int,
    *,
    rank: int = 0,
    predecessors: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    queries_from: str | None = None,
) -> ModalPath:
    """Freeze the model, add the path of a stage, and return it.

    Where the base came with a path of that name, that one is returned.

    Args:
        model: The model, with the paths of all earlier stages.
        recipe: The run.
        name: Modality of the stage.
        encoder_width: Width of the features its encoder delivers.
        rank: Bottleneck width of its adapters; 0 adds none.
        predecessors: Earlier paths whose adapters it may use.
        own: Parts of the connector that it has for itself.
        queries_from: Path whose queries its own start from; None is the one before it.
    """
    method = recipe.method
    freeze(model)
    if name in model.paths:
        return model.paths[name]
    spec = PathSpec(
        name=name,
        encoder_width=encoder_width,
        num_queries=method.queries,
        predecessors=predecessors,
        rank=rank,
        sites=method.sites,
        gate=method.gate,
        top_k=method.top_k,
        in_adapter=method.in_adapter,
        plain_sites=method.plain_sites,
        plain_rank=method.plain_rank,
        own=own,
    )
    return model.paths.expand(spec, queries_from or _previous(model, recipe, name))


def _previous(model: PathWeave, recipe: Recipe, name: str) -> str | None:
    """Return the path of the stage before, else the last that the base came with, else None."""
    stages = recipe.curriculum[: recipe.curriculum.index(name)]
    earlier = [stage for stage in stages if stage in model.paths] or model.paths.names
    return earlier[-1] if earlier else None


def trainable(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return modules as what a lesson trains."""
    trained = nn.ModuleDict(modules)
    trained.requires_grad_(True)
    return trained


def tune_connector(task: Task, also: Sequence[str] = ()) -> nn.ModuleDict:
    """Add a path without adapters for each modality of a stage, and train all of the connector.

    Args:
        task: The stage.
        also: Earlier paths that are trained too.
    """
    model = task.model
    added = {name: add_path(model, task.recipe, name, task.width(name)) for name in task.names}
    others = {**added, **{name: model.paths[name] for name in also}}
    del others[task.name]
    return trainable(
        {
            "path": added[task.name],
            "qformer": model.qformer,
            "projector": model.projector,
            **{f"path/{name}": path for name, path in others.items()},
        }
    )


def connector_weights(model: PathWeave) -> dict[str, nn.Parameter]:
    """Return the parameters of Q-Former and projector by name."""
    parts = {"qformer": model.qformer, "projector": model.projector}
    return {f"{part}.{name}": p for part, m in parts.items() for name, p in m.named_parameters()}


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of weights."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def kept(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return tensors as buffers, to be saved with the state of a running stage."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name.replace(".", "/"), tensor)
    return module


@torch.no_grad()
def move_towards(
    weights: Mapping[str, Tensor], goal: Mapping[str, Tensor], share: float | Mapping[str, Tensor]
) -> None:
    """Move weights the given share of the way to a goal: 0 leaves them, 1 gives the goal, exactly.

    Args:
        weights: Changed in place.
        goal: Tensors of the same names.
        share: In [0, 1]; for all alike, or by name for each number.
    """
    for name, weight in weights.items():
        weight.lerp_(goal[name], share if isinstance(share, float) else share[name])


def pulled(amount: Amount) -> Amount:
    r"""Return the share of the way back that a quadratic penalty pulls a weight in one step.

    The penalty $\frac{\lambda}{2} F (\theta - \theta^*)^2$ acts beside the adaptive step, as decay
    does in AdamW (arXiv 1711.05101), and implicitly: $\theta \leftarrow \theta^* + (\theta -
    \theta^*) / (1 + \eta \lambda F)$. So 0 does nothing, any strength is stable, and the
    clipping of gradients, which a penalty in the loss would use up, keeps its meaning.

    Args:
        amount: $\eta \lambda F$: learning rate, strength, and the importance of the weight.

    Example:
        >>> pulled(1.0), pulled(0.0)
        (0.5, 0.0)
    """
    return 1 - 1 / (1 + amount)


@dataclass(frozen=True)
class Chosen:
    """Some samples of a set.

    Attributes:
        samples: The set.
        indices: Which of its samples.
    """

    samples: Samples
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a sample with its media encoded."""
        return self.samples.prompt(self.indices[index])

    def answer(self, index: int) -> str:
        """Return what is to be learnt as the answer."""
        return self.samples.answer(self.indices[index])

    def length(self, index: int) -> int:
        """Return a measure of the length of a sample."""
        return self.samples.length(self.indices[index])


def buffer(task: Task, name: str, count: int) -> list[Source]:
    """Return samples of a modality to keep, the same in every stage of a run.

    Args:
        task: The stage.
        name: The modality.
        count: Number of samples, split over its training sets by their weight; a set that has
            fewer gives all.
    """
    sets = task.sets(name)
    total = sum(source.weight for source in sets)
    position = task.recipe.curriculum.index(name)
    drawn = []
    for which, source in enumerate(sets):
        random = np.random.default_rng([task.recipe.seed, position, which])
        number = max(1, round(count * source.weight / total))
        indices = sorted(int(i) for i in random.permutation(len(source.samples))[:number])
        drawn.append(replace(source, samples=Chosen(source.samples, tuple(indices))))
    return drawn


def mixture(
    first: Sequence[Source], *others: Sequence[Source], weight: float = 1.0
) -> list[Source]:
    """Return the sets of several modalities to draw from together.

    Args:
        first: Sets of one modality.
        others: Sets of the others.
        weight: How often each of the others is drawn, relative to the first.
    """
    total = sum(source.weight for source in first)
    mixed = list(first)
    for sets in others:
        scale = weight * total / sum(source.weight for source in sets)
        mixed += [replace(source, weight=source.weight * scale) for source in sets]
    return mixed
