"""Learning rate and parameter groups of a stage."""

import math

import torch
from torch import nn

from pathweave.methods.settings import Training
from pathweave.model.llm_hosts import PREFIX
from pathweave.nn import Adapter, Gate
from pathweave.nn.patches import SeriesReader


def learning_rate_factor(step: int, training: Training) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine.

    In the warm-up it is the share of the way from ``warmup_start_lr`` to the peak.

    Args:
        step: Optimiser steps done so far, from 0.
        training: Settings of the stage.

    Example:
        >>> learning_rate_factor(100, Training(steps=100, warmup=0))
        0.0
    """
    if step < training.warmup:
        return (step + 1) / (training.warmup + 1)
    progress = (step - training.warmup) / max(1, training.steps - training.warmup)
    low = training.min_lr_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


# Where in what a stage trains a projector is tuned as a whole: the shared one, or a path's own.
PROJECTORS = ("projector.", "path.own.projector.")


def make_optimizer(modules: nn.ModuleDict, training: Training) -> torch.optim.AdamW:
    """Return AdamW over everything in ``modules``; vectors and scalars are not decayed.

    Tensors of one rate and decay are one group.

    Args:
        modules: What the stage trains; a whole projector, the up-projections of adapters, gates
            and patch encoders may have learning rates of their own.
        training: Settings of the stage.
    """
    own: dict[nn.Parameter, float | None] = {}
    for module in modules.modules():
        if isinstance(module, Adapter):
            own |= dict.fromkeys(module.up.parameters(), training.up_lr)
        elif isinstance(module, Gate):
            own |= dict.fromkeys(module.parameters(), training.gate_lr)
        elif isinstance(module, SeriesReader):
            own |= dict.fromkeys(module.parameters(), training.patches_lr)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in modules.named_parameters():
        whole = training.projector_lr if name.startswith(PROJECTORS) else None
        peak = own.get(parameter) or whole or training.lr
        peak *= training.llm_lr_share if f"experts.{PREFIX}" in name else 1.0
        decay = training.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    listed = [
        {"params": chosen, "weight_decay": decay, "peak_lr": peak}
        for (peak, decay), chosen in groups.items()
    ]
    return torch.optim.AdamW(listed, lr=training.lr, betas=training.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, training: Training) -> float:
    """Set every group's learning rate for a step and return that of the first group."""
    factor = learning_rate_factor(step, training)
    start = training.warmup_start_lr if step < training.warmup else 0.0
    for group in optimizer.param_groups:
        group["lr"] = start + (group["peak_lr"] - start) * factor
    return optimizer.param_groups[0]["lr"]
