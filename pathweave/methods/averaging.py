"""Averages of weights, and steps from one set of weights towards another."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Amount = TypeVar("Amount", float, Tensor)


def clone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of weights."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def as_buffers(tensors: Mapping[str, Tensor]) -> nn.Module:
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


def proximal_step(amount: Amount) -> Amount:
    r"""Return the share of the way back that a quadratic penalty pulls a weight in one step.

    The penalty $\frac{\lambda}{2} F (\theta - \theta^*)^2$ acts beside the adaptive step, as decay
    does in AdamW (arXiv 1711.05101), and implicitly: $\theta \leftarrow \theta^* + (\theta -
    \theta^*) / (1 + \eta \lambda F)$. So 0 does nothing, any strength is stable, and the
    clipping of gradients, which a penalty in the loss would use up, keeps its meaning.

    Args:
        amount: $\eta \lambda F$: learning rate, strength, and the importance of the weight.

    Example:
        >>> proximal_step(1.0), proximal_step(0.0)
        (0.5, 0.0)
    """
    return 1 - 1 / (1 + amount)
