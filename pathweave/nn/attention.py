"""Multi-head attention whose four projections are woven."""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.nn.woven import Route, WovenLinear, weave_together


class Attention(nn.Module):
    """BERT attention block: attention, output projection, residual, layer norm.

    Args:
        dim: Width of the rows that ask.
        context_width: Width of the rows that are asked.
        num_heads: Number of heads; divides ``dim``.
        dropout: Probability, in [0, 1), applied to attention weights and to the output.
        layer_norm_eps: Epsilon of the layer norm.
        site: Prefix of the names of the four sites.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        context_width: int,
        num_heads: int,
        dropout: float,
        layer_norm_eps: float,
        site: str,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim={dim}, got {num_heads}")
        self.num_heads = num_heads
        self.query = WovenLinear(nn.Linear(dim, dim), f"{site}/query")
        self.key = WovenLinear(nn.Linear(context_width, dim), f"{site}/key")
        self.value = WovenLinear(nn.Linear(context_width, dim), f"{site}/value")
        self.output = WovenLinear(nn.Linear(dim, dim), f"{site}/output")
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch rows dim"],
        context: Float[Tensor, "batch tokens width"],
        route: Route,
        mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch rows dim"]:
        """Return ``norm(x + attention(x, context))``; ``mask`` is true where context counts."""
        if x is context:
            query, key, value = weave_together([self.query, self.key, self.value], x, route)
        else:
            query = self.query(x, route)
            key, value = weave_together([self.key, self.value], context, route)
        attended = F.scaled_dot_product_attention(
            self._split(query),
            self._split(key),
            self._split(value),
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        merged = attended.transpose(1, 2).flatten(2)
        return self.norm(self.dropout(self.output(merged, route)) + x)

    def _split(
        self, x: Float[Tensor, "batch rows dim"]
    ) -> Float[Tensor, "batch heads rows head_dim"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
