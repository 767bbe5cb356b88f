"""Update clipping: no tensor moves further in a step than its running means of gradients foresee.

Adam divides by a running mean of squared gradients that forgets slowly. When the gradient of a
tensor grows within a step or two, it divides by what used to be, and the tensor is thrown: so,
likely, fast adapters in the first layer of a Q-Former collapse (docs/log.md, 2026-11-28).
StableAdamW (Wortsman et al. 2023, arXiv 2304.13013, algorithm 2) lowers the rate of that tensor for
that step.
"""

import torch
from torch import Tensor


@torch.no_grad()
def limit_updates(optimizer: torch.optim.AdamW, max_rms: float) -> None:
    r"""Divide each group's rate by $\max(1, \mathrm{RMS}(g / \sqrt{\hat v}) / \text{max\_rms})$.

    To be called between the backward pass and the optimiser's step; $\hat v$ is the running mean of
    squared gradients that this step will divide by. The rates hold for this step alone: whoever
    schedules them sets them anew.

    Args:
        optimizer: One tensor in each group.
        max_rms: Largest root mean square, above 0; that of a gradient as large as usual is 1.

    Raises:
        ValueError: If a group has more than one tensor.
    """
    limited, sizes = [], []
    for group in optimizer.param_groups:
        if len(group["params"]) != 1:
            raise ValueError(
                f"every group must hold one tensor, got one of {len(group['params'])}; make them "
                "with make_optimizer and training.max_update_rms"
            )
        parameter = group["params"][0]
        if parameter.grad is not None:
            state = optimizer.state.get(parameter, {})
            limited.append(group)
            sizes.append(_update_rms(parameter.grad, state, group["betas"][1], group["eps"]))
    # All at once, as each transfer from an accelerator waits for it.
    for group, size in zip(limited, torch.stack(sizes).tolist() if sizes else [], strict=True):
        group["lr"] /= max(1.0, size / max_rms)


def _update_rms(gradient: Tensor, state: dict[str, Tensor], beta: float, eps: float) -> Tensor:
    """Return the root mean square of a gradient over the root of its running mean square."""
    square = gradient.square()
    before, steps = state.get("exp_avg_sq", 0.0), state.get("step", 0)
    mean = (beta * before + (1 - beta) * square) / (1 - beta ** (steps + 1))
    return (square / mean.clamp(min=eps**2)).mean().sqrt()
