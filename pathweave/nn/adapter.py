"""The two small modules that a path adds at a host: the adapter and the in-adapter.

Both are affine (PathWeave, sec. 3, and the released code): that is what lets ``woven`` compute
all experts of a host in two matrix products.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

InAdapterInit = Literal["identity", "zero", "normal"]
NORMAL_STD = 0.02


class InAdapter(nn.Linear):
    r"""Map $F_i^m(h) = W h + b$ inside the bottleneck of an earlier path's adapter.

    Args:
        rank: Bottleneck width of the adapter it is placed in.
        init: Initial map: ``zero`` starts from nothing, ``identity`` from the earlier adapter as
            it is, ``normal`` from N(0, 0.02) weights as the released code effectively does.

    Raises:
        ValueError: If ``init`` is none of these.

    Example:
        >>> import torch
        >>> InAdapter(rank=2, init="identity")(torch.tensor([3.0, 4.0])).tolist()
        [3.0, 4.0]
    """

    def __init__(self, rank: int, init: InAdapterInit = "zero"):
        if init not in get_args(InAdapterInit):
            raise ValueError(f"init must be one of {get_args(InAdapterInit)}, got {init!r}")
        super().__init__(rank, rank)
        nn.init.zeros_(self.bias)
        if init == "identity":
            nn.init.eye_(self.weight)
        elif init == "zero":
            nn.init.zeros_(self.weight)
        else:
            nn.init.normal_(self.weight, std=NORMAL_STD)


class Adapter(nn.Module):
    r"""Bottleneck $A(x) = s\,(W_{up} (W_{down} x + b_{down}) + b_{up})$ (PathWeave, sec. 3.2).

    With an in-adapter it is the cross-adapter $\hat A(x) = s\,(W_{up} F(W_{down} x + b_{down}) +
    b_{up})$. A new adapter is the zero map, so adding one leaves the host's output unchanged
    until the first optimiser step.

    Args:
        in_dim: Input width of the host.
        out_dim: Output width of the host.
        rank: Bottleneck width; in [1, min(in_dim, out_dim)].
        scale: First value of $s$, which is learnt.

    Raises:
        ValueError: If ``rank`` is outside that range.

    Example:
        >>> import torch
        >>> Adapter(in_dim=8, out_dim=4, rank=2)(torch.ones(1, 3, 8)).abs().max().item()
        0.0
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, scale: float = 1.0):
        super().__init__()
        limit = min(in_dim, out_dim)
        if not 1 <= rank <= limit:
            raise ValueError(f"rank must be in [1, min(in_dim, out_dim)={limit}], got {rank}")
        self.down = nn.Linear(in_dim, rank)
        self.up = nn.Linear(rank, out_dim)
        self.scale = nn.Parameter(torch.full((1,), scale))
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return self.down.out_features

    def forward(
        self, x: Float[Tensor, "*rows dim"], inner: InAdapter | None = None
    ) -> Float[Tensor, "*rows out"]:
        """Return the correction to add to the host's output, with ``inner`` inside if given."""
        bottleneck = self.down(x)
        if inner is not None:
            bottleneck = inner(bottleneck)
        return self.scale * self.up(bottleneck)
