"""Update clipping: no tensor moves further in a step than its running means of gradients foresee.

Adam divides by a running mean of squared gradients that forgets slowly. When the gradient of a
tensor grows within a step or two, it divides by what used to be, and the tensor is thrown: so,
likely, fast adapters in the first layer of a Q-Former collapse (docs/log.md, 2026-11-28).
StableAdamW (Wortsman et al. 2023, arXiv 2304.13013, algorithm 2) lowers the rate of that tensor for
that step.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor


@torch.no_grad()
def limited_step(optimizer: torch.optim.AdamW, max_rms: float | None) -> None:
    r"""Step with the rate of each tensor over $\max(1, \mathrm{RMS}(g / \sqrt{\hat v}) / r)$.

    $\hat v$ is the running mean of squared gradients that this step divides by, $r$ the limit.

    Args:
        optimizer: Its tensors have their gradients; one without is left out.
        max_rms: Largest root mean square, above 0; that of a gradient as large as usual is 1.
            None limits nothing.
    """
    if max_rms is None:
        optimizer.step()
        return
    limited: list[Tensor] = []
    shares: list[float] = []
    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        sizes = _update_rms(optimizer, moved, group["betas"][1], group["eps"]) if moved else []
        for parameter, size in zip(moved, sizes, strict=True):
            if size > max_rms:
                limited.append(parameter)
                shares.append(max_rms / size)
    before = list(torch._foreach_mul(limited, 1.0)) if limited else []
    optimizer.step()
    if limited:
        # A step, its decay too, is proportional to the rate: so this is what a lower rate gives.
        torch._foreach_sub_(limited, before)
        torch._foreach_mul_(limited, shares)
        torch._foreach_add_(limited, before)


def _update_rms(
    optimizer: torch.optim.AdamW, moved: Sequence[Tensor], beta: float, eps: float
) -> list[float]:
    """Return the root mean square of each gradient over the root of its running mean square."""
    # Operations on lists of tensors, as hundreds of small ones would cost more than the step.
    gradients = [cast(Tensor, parameter.grad) for parameter in moved]
    states = [optimizer.state.get(parameter, {}) for parameter in moved]
    zero = torch.zeros((), device=moved[0].device)
    steps = torch.stack([state.get("step", zero) for state in states]).tolist()
    squares = [
        state.get("exp_avg_sq", zero.expand_as(gradient))
        for state, gradient in zip(states, gradients, strict=True)
    ]
    means = list(torch._foreach_mul(squares, beta))
    torch._foreach_addcmul_(means, gradients, gradients, value=1 - beta)
    torch._foreach_div_(means, [1 - beta ** (step + 1) for step in steps])
    torch._foreach_sqrt_(means)
    torch._foreach_clamp_min_(means, eps)
    norms = torch.stack(torch._foreach_norm(torch._foreach_div(gradients, means))).tolist()
    counts = [gradient.numel() for gradient in gradients]
    return [norm / math.sqrt(count) for norm, count in zip(norms, counts, strict=True)]
