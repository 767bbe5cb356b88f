"""The Q-Former (BLIP-2, arXiv 2301.12597; with instruction text: InstructBLIP, arXiv 2305.06500).

Query tokens and instruction text attend to each other in every layer; in every second layer the
query rows also attend to encoder features. Queries and text have feed-forward blocks of their own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.nn.attention import Attention
from pathweave.nn.woven import Route, WovenLinear


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a Q-Former.

    Attributes:
        dim: Width of queries and text.
        num_layers: Number of layers.
        num_heads: Number of heads.
        hidden_dim: Width inside the feed-forward blocks.
        encoder_width: Width of the features that every path delivers.
        cross_attention_every: Layers 0, k, 2k, ... have cross-attention.
        vocab_size: Size of the text vocabulary; None for a Q-Former without text.
        max_positions: Longest text, in tokens.
        dropout: Probability, in [0, 1).
        layer_norm_eps: Epsilon of the layer norms.
    """

    dim: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    encoder_width: int
    cross_attention_every: int = 2
    vocab_size: int | None = None
    max_positions: int = 512
    dropout: float = 0.0
    layer_norm_eps: float = 1e-12


class FeedForward(nn.Module):
    """BERT feed-forward block whose two linear layers are woven.

    Args:
        dim: Width of the rows.
        hidden_dim: Width in between.
        dropout: Probability, in [0, 1).
        layer_norm_eps: Epsilon of the layer norm.
        site: Prefix of the names of the two sites.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float, layer_norm_eps: float, site: str):
        super().__init__()
        self.expand = WovenLinear(nn.Linear(dim, hidden_dim), f"{site}/expand")
        self.contract = WovenLinear(nn.Linear(hidden_dim, dim), f"{site}/contract")
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        # Saved as plain layers: ``expand.weight``, not ``expand.host.weight``.
        self.register_state_dict_post_hook(_without_host)
        self.register_load_state_dict_pre_hook(_with_host)

    def forward(
        self, x: Float[Tensor, "batch rows dim"], route: Route
    ) -> Float[Tensor, "batch rows dim"]:
        """Return ``norm(x + contract(gelu(expand(x))))``."""
        hidden = F.gelu(self.expand(x, route))
        return self.norm(self.dropout(self.contract(hidden, route)) + x)


def _without_host(_: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Take ``host`` out of the names below a prefix, in place and in order."""
    named = [*state.items()]
    state.clear()
    for name, tensor in named:
        if name.startswith(prefix):
            name = prefix + name.removeprefix(prefix).replace("host.", "")
        state[name] = tensor


def _with_host(_: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Put ``host`` into the names of the two layers below a prefix, in place."""
    for name in [n for n in state if n.startswith((f"{prefix}expand.", f"{prefix}contract."))]:
        layer, tensor = name.rsplit(".", 1)
        state[f"{layer}.host.{tensor}"] = state.pop(name)


class QFormerLayer(nn.Module):
    """Joint self-attention, cross-attention of the queries if any, feed-forward by kind of row.

    Args:
        shape: Sizes of the Q-Former.
        index: Position of the layer, from 0.
    """

    def __init__(self, shape: QFormerConfig, index: int):
        super().__init__()
        dim, rest = shape.dim, (shape.num_heads, shape.dropout, shape.layer_norm_eps)
        site = f"layer_{index}"
        self.self_attention = Attention(dim, dim, *rest, site=f"{site}/self_attention")
        self.cross_attention = self.text_ffn = None
        if index % shape.cross_attention_every == 0:
            self.cross_attention = Attention(
                dim, shape.encoder_width, *rest, site=f"{site}/cross_attention"
            )
        ffn = (dim, shape.hidden_dim, shape.dropout, shape.layer_norm_eps)
        self.query_ffn = FeedForward(*ffn, site=f"{site}/query_ffn")
        if shape.vocab_size is not None:
            self.text_ffn = FeedForward(*ffn, site=f"{site}/text_ffn")

    def forward(
        self,
        rows: Float[Tensor, "batch rows dim"],
        num_queries: int,
        features: Float[Tensor, "batch tokens width"],
        route: Route,
        row_mask: Bool[Tensor, "batch rows"] | None,
        feature_mask: Bool[Tensor, "batch tokens"] | None,
    ) -> Float[Tensor, "batch rows dim"]:
        """Return the rows (queries first, then text) after this layer."""
        rows = self.self_attention(rows, rows, route, row_mask)
        queries, text = rows[:, :num_queries], rows[:, num_queries:]
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, features, route, feature_mask)
        queries = self.query_ffn(queries, route)
        if self.text_ffn is None or text.shape[1] == 0:
            return queries
        return torch.cat([queries, self.text_ffn(text, route)], dim=1)


class QFormer(nn.Module):
    """Turn encoder features into a fixed number of tokens, steered by the instruction.

    Args:
        shape: Sizes; see ``QFormerConfig``.
    """

    def __init__(self, shape: QFormerConfig):
        super().__init__()
        self.shape = shape
        self.words = self.positions = None
        if shape.vocab_size is not None:
            self.words = nn.Embedding(shape.vocab_size, shape.dim)
            self.positions = nn.Embedding(shape.max_positions, shape.dim)
        self.norm = nn.LayerNorm(shape.dim, eps=shape.layer_norm_eps)
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(QFormerLayer(shape, i) for i in range(shape.num_layers))

    def forward(
        self,
        queries: Float[Tensor, "batch queries dim"],
        features: Float[Tensor, "batch tokens width"],
        route: Route,
        feature_mask: Bool[Tensor, "batch tokens"] | None = None,
        text: Int[Tensor, "batch text"] | None = None,
        text_mask: Bool[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Return one row per query token. Masks are true where a token counts; None is all."""
        rows, row_mask = self._embed(queries, text, text_mask)
        for layer in self.layers:
            rows = layer(rows, queries.shape[1], features, route, row_mask, feature_mask)
        return rows[:, : queries.shape[1]]

    def _embed(
        self,
        queries: Float[Tensor, "batch queries dim"],
        text: Int[Tensor, "batch text"] | None,
        text_mask: Bool[Tensor, "batch text"] | None,
    ) -> tuple[Float[Tensor, "batch rows dim"], Bool[Tensor, "batch rows"] | None]:
        """Return the normed rows, queries first, and which of them count."""
        if text is None:
            return self.dropout(self.norm(queries)), None
        if self.words is None or self.positions is None:
            raise ValueError("text must be None for a Q-Former built without a vocabulary")
        if text.shape[1] > self.shape.max_positions:
            raise ValueError(
                f"text must have at most {self.shape.max_positions} tokens, got {text.shape[1]}"
            )
        # Text positions start at 0 and queries have none, as in BLIP-2.
        words = self.words(text) + self.positions.weight[: text.shape[1]]
        rows = self.dropout(self.norm(torch.cat([queries, words], dim=1)))
        if text_mask is None:
            return rows, None
        always = text_mask.new_ones(queries.shape[:2])
        return rows, torch.cat([always, text_mask], dim=1)
