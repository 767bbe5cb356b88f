"""The gate: how much each expert of a host contributes to each token (PathWeave, sec. 3.3)."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

GateKind = Literal["softmax", "noisy_softmax", "top_k"]
MIN_NOISE_STD = 0.01


class Gate(nn.Module):
    r"""Expert weights $g = \mathrm{softmax}(W_g x)$ per token; they sum to 1.

    ``noisy_softmax`` adds $\epsilon\,(\mathrm{softplus}(W_n x) + 0.01)$, $\epsilon \sim N(0, 1)$,
    to the logits while the module is in training mode (Shazeer et al., arXiv 1701.06538), as the
    released code does. ``top_k`` keeps the ``k`` largest logits and gives the others weight 0. A
    new gate weighs all experts alike.

    Args:
        dim: Input width of the host.
        num_experts: Number of experts; at least 1.
        kind: One of ``softmax``, ``noisy_softmax``, ``top_k``.
        k: Experts kept by ``top_k``; more than there are means all.

    Raises:
        ValueError: If ``kind`` is unknown or ``num_experts`` or ``k`` is below 1.

    Example:
        >>> import torch
        >>> Gate(dim=8, num_experts=4)(torch.ones(8)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, dim: int, num_experts: int, kind: GateKind = "softmax", k: int = 2):
        super().__init__()
        if kind not in get_args(GateKind):
            raise ValueError(f"gate kind must be one of {get_args(GateKind)}, got {kind!r}")
        if num_experts < 1 or k < 1:
            raise ValueError(f"num_experts and k must be at least 1, got {num_experts} and {k}")
        self.kind = kind
        self.k = min(k, num_experts)
        self.weight = nn.Parameter(torch.zeros(dim, num_experts))
        self.noise_weight: nn.Parameter | None = None
        if kind == "noisy_softmax":
            self.noise_weight = nn.Parameter(torch.zeros(dim, num_experts))

    @property
    def num_weighed(self) -> int:
        """Experts that share the weight of a token; each gets its inverse from a new gate."""
        return self.k if self.kind == "top_k" else self.weight.shape[1]

    @property
    def columns(self) -> list[Tensor]:
        """Weights whose products with ``x`` ``mix`` needs: clean logits, then noise if it is on."""
        if self.noise_weight is not None and self.training:
            return [self.weight, self.noise_weight]
        return [self.weight]

    def forward(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows experts"]:
        """Return the weight of each expert for each token."""
        return self.mix(*(x @ column for column in self.columns))

    def mix(
        self,
        logits: Float[Tensor, "*rows experts"],
        noise_logits: Float[Tensor, "*rows experts"] | None = None,
    ) -> Float[Tensor, "*rows experts"]:
        """Turn logits (and those of the noise, in training) into weights, in float32."""
        raw = logits.float()
        if noise_logits is not None:
            std = F.softplus(noise_logits.float()) + MIN_NOISE_STD
            raw = raw + torch.randn_like(raw) * std
        if self.kind == "top_k" and self.k < raw.shape[-1]:
            threshold = raw.topk(self.k, dim=-1).indices
            mask = torch.full_like(raw, float("-inf")).scatter(-1, threshold, 0.0)
            raw = raw + mask
        return raw.softmax(dim=-1).to(logits.dtype)
