"""The linear layers of a connector, and on how many rows of a unit each of them works."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import nn

from pathweave.estimate.workload import Workload
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave
from pathweave.nn import Experts
from pathweave.nn.attention import Attention
from pathweave.nn.qformer import FeedForward, QFormerLayer


@dataclass(frozen=True)
class Adapted:
    """What a path adds at one host.

    Attributes:
        experts: The path's own part.
        ranks: Bottleneck widths of all experts, the predecessors' first.
    """

    experts: Experts
    ranks: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Bottleneck channels of all experts."""
        return sum(self.ranks)

    def columns(self, training: bool) -> int:
        """Columns of the stacked down-projections and gate (``nn.Mixture.inward``)."""
        gate = self.experts.gate
        if gate is None:
            return self.channels
        noisy = training and gate.noise_weight is not None
        return self.channels + len(self.ranks) * (2 if noisy else 1)


@dataclass(frozen=True)
class Linear:
    """A linear layer, the rows of a unit it is applied to, and what the path adds there."""

    layer: nn.Linear
    rows: int
    adapted: Adapted | None = None


def qformer_layers(model: PathWeave) -> list[QFormerLayer]:
    """Return the layers of the Q-Former, typed."""
    return [cast(QFormerLayer, layer) for layer in model.qformer.layers]


def linears(model: PathWeave, path: ModalPath, load: Workload) -> Iterator[Linear]:
    """Return every linear layer that a unit passes between encoder and language model."""
    if isinstance(path.input_projection, nn.Linear):
        yield Linear(path.input_projection, load.tokens)
    for layer in qformer_layers(model):
        yield from _attention(model, path, layer.self_attention, load.rows, load.rows)
        if layer.cross_attention is not None:
            yield from _attention(model, path, layer.cross_attention, load.queries, load.tokens)
        yield from _feed_forward(model, path, layer.query_ffn, load.queries)
        if layer.text_ffn is not None and load.qformer_text:
            yield from _feed_forward(model, path, layer.text_ffn, load.qformer_text)
    projector = model.projector.linear
    yield Linear(projector.host, load.queries, adapted(model, path, projector.site))


def adapted(model: PathWeave, path: ModalPath, site: str) -> Adapted | None:
    """Return what a path adds at a site, or None."""
    experts = path.experts_at(site)
    if experts is None:
        return None
    earlier = [model.paths[name].adapter(site) for name in path.spec.predecessors]
    ranks = [adapter.rank for adapter in earlier if adapter is not None]
    return Adapted(experts, (*ranks, experts.adapter.rank))


def _attention(
    model: PathWeave, path: ModalPath, attention: Attention, rows: int, context: int
) -> Iterator[Linear]:
    asking, asked = (attention.query, attention.output), (attention.key, attention.value)
    for woven, count in ((w, n) for group, n in ((asking, rows), (asked, context)) for w in group):
        yield Linear(woven.host, count, adapted(model, path, woven.site))


def _feed_forward(
    model: PathWeave, path: ModalPath, block: FeedForward, rows: int
) -> Iterator[Linear]:
    for woven in (block.expand, block.contract):
        yield Linear(woven.host, rows, adapted(model, path, woven.site))
