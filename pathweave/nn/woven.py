r"""Adapter-in-Adapter at one host (PathWeave, sec. 3.2 and 3.3).

    y = W x + sum_{i<m} g_i(x) A_up^i( F_i^m( A_down^i x ) ) + g_m(x) A^m(x)

``Experts`` is what path m owns at one host. ``Mixture`` is the same function as two matrix
products: every expert is affine, so all down-projections and the gate stack into one matrix, and
each in-adapter folds into the up-projection behind it. ``Route`` says which path each row of a
batch takes, or each token. ``WovenLinear`` is a frozen linear layer that takes a route as an
argument (one of a foreign module finds it in ``hooked``): no module remembers a path, so batches,
messages and threads may mix them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pathweave.nn.adapter import Adapter, InAdapter, InAdapterInit
from pathweave.nn.gate import Gate, GateKind


@dataclass(frozen=True)
class Mixture:
    """All experts of one path at one host, fused.

    Attributes:
        inward: Stacked down-projections of all experts, then the columns of the gate.
        inward_bias: Their biases (0 for the gate).
        outward: Stacked up-projections with in-adapters and scales folded in, then one row per
            expert with its constant term.
        spread: 1 where a bottleneck channel belongs to an expert, else 0.
        gate: The gate, or None for the plain sum of experts.
    """

    inward: Float[Tensor, "dim columns"]
    inward_bias: Float[Tensor, " columns"]
    outward: Float[Tensor, "rows out"]
    spread: Float[Tensor, "experts channels"]
    gate: Gate | None

    def __call__(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows out"]:
        """Return the correction to add to the host's output."""
        return self.weighed(x) @ self.outward

    def weighed(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows rows_of_outward"]:
        """Return what ``outward`` is multiplied with: gated bottlenecks, then gate weights."""
        # One product for all bottlenecks and the gate's logits, one for all up-projections and
        # constant terms: a loop over experts would read x and write y once for each.
        return self.weigh(x @ self.inward)

    def weigh(self, read: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows rows_of_outward"]:
        """Return the same, given the product of ``x`` and ``inward``."""
        stacked = read + self.inward_bias
        num_experts, num_channels = self.spread.shape
        if self.gate is None:
            # Every expert counts once: so do the constant terms, the last rows of ``outward``.
            return F.pad(stacked, (0, num_experts), value=1.0)
        channels = stacked[..., :num_channels]
        weights = self.gate.mix(*stacked[..., num_channels:].split(num_experts, dim=-1))
        # g_i (U_i h_i + c_i) = U_i (g_i h_i) + g_i c_i: weigh the bottleneck, not the wide output.
        # A product with zeros and ones is exact, and quicker than looking weights up.
        return torch.cat([channels * (weights @ self.spread), weights], dim=-1)

    def gate_weights(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows experts"]:
        """Return what the gate gives each expert for each token (ones without a gate)."""
        if self.gate is None:
            return x.new_ones(*x.shape[:-1], len(self.spread))
        return self.gate(x)


class Experts(nn.Module):
    """What one path owns at one host: its adapter, its in-adapters, its gate.

    Args:
        in_dim: Input width of the host.
        out_dim: Output width of the host.
        rank: Bottleneck width of the path's own adapter.
        earlier_ranks: Bottleneck widths of the predecessors' adapters at this host, in order.
        gate: Kind of the gate; None adds the experts up.
        top_k: Experts kept by a ``top_k`` gate.
        in_adapter: Initial value of the in-adapters; None places none, so that the predecessors'
            adapters are used as they are.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        earlier_ranks: Sequence[int] = (),
        gate: GateKind | None = "softmax",
        top_k: int = 2,
        in_adapter: InAdapterInit | None = "zero",
    ):
        super().__init__()
        self.num_earlier = len(earlier_ranks)
        inner = [] if in_adapter is None else [InAdapter(r, in_adapter) for r in earlier_ranks]
        self.in_adapters = nn.ModuleList(inner)
        self.gate = None
        # With a single expert a softmax is the constant 1: there is nothing to learn.
        if gate is not None and self.num_earlier > 0:
            self.gate = Gate(in_dim, self.num_earlier + 1, gate, top_k)
        # A new gate weighs all experts alike. Without a scale that makes up for it, the path's own
        # adapter would learn the more slowly the more predecessors there are.
        scale = 1.0 if self.gate is None else float(self.gate.num_weighed)
        self.adapter = Adapter(in_dim, out_dim, rank, scale)

    def fuse(self, earlier: Sequence[Adapter]) -> Mixture:
        """Return the fused form, given the predecessors' adapters at this host, in order."""
        return fuse([(self, earlier)])[0]


def fuse(hosts: Sequence[tuple[Experts, Sequence[Adapter]]]) -> list[Mixture]:
    """Return the fused form of the experts at each host, given the predecessors' adapters there.

    Gradients flow through the fused matrices to whatever requires them. Fusing costs
    O(rank^2 * out) per expert, which is independent of the batch. Hosts of one shape are fused
    together: a language model has hundreds.
    """
    alike: dict[object, list[int]] = {}
    for index, (experts, earlier) in enumerate(hosts):
        if len(earlier) != experts.num_earlier:
            raise ValueError(
                f"earlier must hold {experts.num_earlier} adapters, got {len(earlier)}; pass those "
                "of the predecessors the path was made with"
            )
        columns = () if experts.gate is None else [c.shape for c in experts.gate.columns]
        adapters = [(a.down.weight.shape, a.up.weight.shape) for a in (*earlier, experts.adapter)]
        alike.setdefault(repr((adapters, columns, len(experts.in_adapters))), []).append(index)
    fused: dict[int, Mixture] = {}
    for indices in alike.values():
        fused |= zip(indices, _fuse_alike([hosts[i] for i in indices]), strict=True)
    return [fused[i] for i in range(len(hosts))]


def _fuse_alike(hosts: Sequence[tuple[Experts, Sequence[Adapter]]]) -> list[Mixture]:
    first, num_earlier = hosts[0][0], hosts[0][0].num_earlier
    down, bias, up, constant = [], [], [], []
    for i in range(num_earlier + 1):
        at = [earlier[i] if i < num_earlier else experts.adapter for experts, earlier in hosts]
        down.append(torch.stack([adapter.down.weight for adapter in at]).transpose(1, 2))
        bias.append(torch.stack([adapter.down.bias for adapter in at]))
        ups: list[Tensor] = [adapter.up.weight.T for adapter in at]
        c = torch.stack([adapter.up.bias for adapter in at])[:, None]
        if i < len(first.in_adapters):
            # An in-adapter stands behind the down-projection, which is the predecessor's own and
            # frozen: so it folds into what comes after it, and ``inward`` is a mere stack.
            # s (U (F h + f) + b) = (s U F) h + s (U f + b), here with rows for columns. Each host's
            # product by itself: one for all has other last bits.
            inner = [cast(InAdapter, experts.in_adapters[i]) for experts, _ in hosts]
            pairs = [*zip(inner, ups, strict=True)]
            c = torch.stack([each.bias @ u for each, u in pairs])[:, None] + c
            ups = [each.weight.T @ u for each, u in pairs]
        u, scale = torch.stack(ups), torch.stack([adapter.scale for adapter in at])[:, None]
        up.append(scale * u)
        constant.append(scale * c)
    if first.gate is not None:
        columns = [cast(Gate, experts.gate).columns for experts, _ in hosts]
        down += [torch.stack(each) for each in zip(*columns, strict=True)]
    inward, stacked = torch.cat(down, dim=2), torch.cat(bias, dim=1)
    stacked = F.pad(stacked, (0, inward.shape[2] - stacked.shape[1]))
    outward = torch.cat([*up, *constant], dim=1)
    ranks = [u.shape[1] for u in up]
    spread = torch.block_diag(*(u.new_ones(1, rank) for rank in ranks))
    parts = zip(inward.unbind(), stacked.unbind(), outward.unbind(), hosts, strict=True)
    return [Mixture(i, b, o, spread, experts.gate) for i, b, o, (experts, _) in parts]


Rows = int | Int[Tensor, " _"]
Place = slice | Int[Tensor, " _"]


@dataclass(frozen=True)
class Route:
    """Which path each row of a batch takes, or each token.

    Attributes:
        runs: For each run the mixtures of its path, by name of the host, and what takes it: the
            number of consecutive rows, all of whose tokens do; or in all runs indices of single
            tokens, counted through the batch row by row, each in one run at most. A host that the
            path does not adapt is absent.
        tokens: Tokens of a row, where hosts may be given the last ones of each row alone.

    Example:
        >>> Route().rows
        0
    """

    runs: tuple[tuple[Mapping[str, Mixture], Rows], ...] = field(default=())
    tokens: int | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the batch, where runs are of rows."""
        return sum(rows for _, rows in self.runs if isinstance(rows, int))


def weave(
    y: Float[Tensor, "*batch out"], x: Float[Tensor, "*batch dim"], route: Route, site: str
) -> Float[Tensor, "*batch out"]:
    """Return a host's output ``y`` for ``x`` with the correction of the path that each row takes.

    The corrections are added in place: a host's output is as large as what it took to compute it.

    Raises:
        ValueError: If the tokens are of another sequence than those of the route.
    """
    runs = [(mixtures.get(site), rows) for mixtures, rows in route.runs]
    if all(mixture is None for mixture, _ in runs):
        return y
    if route.tokens is not None and x.ndim > 2 and x.shape[-2] > route.tokens:
        raise ValueError(
            f"a host must be given tokens of the sequence, {route.tokens} a row or the last of "
            f"them, got {x.shape[-2]}; leave it out of the sites"
        )
    if route.rows:
        per_row = x.shape[:-1].numel() // route.rows
        ends = accumulate(cast(int, rows) * per_row for _, rows in runs)
        places: Sequence[Place] = [slice(start, end) for start, end in pairwise([0, *ends])]
    else:
        places = _given([rows for _, rows in runs], x, cast(int, route.tokens))
    # The host is one product for the whole batch; only the corrections go run by run.
    flat = x.flatten(0, -2)
    # What autograd takes for a view it would copy whenever it is changed, also in ``backward``.
    y = y.clone() if torch.is_grad_enabled() and y._is_view() else y.contiguous()
    for (mixture, _), place in zip(runs, places, strict=True):
        if mixture is None:
            continue
        weighed = mixture.weighed(_chosen(flat, place).to(mixture.inward))
        if torch.is_grad_enabled():
            y = cast(Tensor, _Added.apply(y, weighed, mixture.outward, place))
        else:
            _add(y, weighed, mixture.outward, place)
    return y


def _given(
    runs: Sequence[Rows], x: Float[Tensor, "*batch dim"], tokens: int
) -> list[Int[Tensor, " _"]]:
    """Return the places of single tokens in ``x``, which may be the last ones of each row alone."""
    given, indices = x.shape[-2], cast(list[Tensor], runs)
    if x.ndim == 2 or given == tokens:
        return indices
    places = [(each // tokens, each % tokens - (tokens - given)) for each in indices]
    return [(row * given + place)[place >= 0] for row, place in places]


def _chosen(rows: Tensor, place: Place) -> Tensor:
    return rows[place] if isinstance(place, slice) else rows.index_select(0, place)


def _add(y: Tensor, weighed: Tensor, outward: Tensor, place: Place) -> None:
    """Add a product to some rows of ``y``, in place."""
    rows = y.view(-1, y.shape[-1])
    if not isinstance(place, slice):
        # Each place stands there once, so there is no order of additions that could vary.
        rows.index_add_(0, place, (weighed @ outward).to(y))
    elif y.dtype == outward.dtype and y.element_size() >= 4:
        rows[place].addmm_(weighed, outward)  # the same bits as a product and a sum
    else:
        rows[place].add_((weighed @ outward).to(y))  # a host may compute in another type


class _Added(torch.autograd.Function):
    """``_add`` with gradients: autograd by itself would copy ``y`` for each run."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        y: Tensor,
        weighed: Tensor,
        outward: Tensor,
        place: Place,
    ) -> Tensor:
        _add(y, weighed, outward, place)
        ctx.mark_dirty(y)
        ctx.save_for_backward(weighed, outward)
        ctx.place = place
        return y

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, ...]:
        weighed, outward = ctx.saved_tensors
        own = _chosen(gradient.flatten(0, -2), ctx.place).to(outward)
        _, inner, outer, _ = ctx.needs_input_grad
        return (
            gradient,
            own @ outward.T if inner else None,
            weighed.T @ own if outer else None,
            None,
        )


class WovenLinear(nn.Module):
    """A linear layer whose correction is chosen row by row by the route.

    Args:
        host: The layer to adapt; it is used as it is.
        site: Name under which a route's mixtures are looked up; unique in a model.
    """

    def __init__(self, host: nn.Linear, site: str):
        super().__init__()
        self.host = host
        self.site = site

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], route: Route
    ) -> Float[Tensor, "batch tokens out"]:
        """Return ``W x`` plus, for each row, the correction of the path that the row takes."""
        return weave_together([self], x, route)[0]


def weave_together(
    layers: Sequence[WovenLinear], x: Float[Tensor, "batch tokens dim"], route: Route
) -> list[Float[Tensor, "batch tokens _"]]:
    """Return the outputs of layers for the same rows; in training it takes less than one by one."""
    ys = _weave_in_training(layers, x, route) if torch.is_grad_enabled() else None
    if ys is not None:
        return ys
    return [weave(layer.host(x), x, route, layer.site) for layer in layers]


def _weave_in_training(
    layers: Sequence[WovenLinear], x: Float[Tensor, "batch tokens dim"], route: Route
) -> list[Float[Tensor, "batch tokens _"]] | None:
    """Return what ``weave`` gives each layer, if all rows take one path and hosts are frozen."""
    hosts: list[nn.Module] = [layer.host for layer in layers]
    if len(route.runs) > 1 or any(type(host) is not nn.Linear for host in hosts):
        return None
    frozen = [p for host in hosts for p in (host.weight, host.bias)]
    mixtures = [mixtures.get(layer.site) for mixtures, _ in route.runs for layer in layers]
    found = [mixture for mixture in mixtures if mixture is not None]
    inward = [mixture.inward for mixture in found]
    alike = all(isinstance(p, Tensor) and p.dtype == x.dtype for p in (*frozen, *inward))
    if not alike or any(p.requires_grad for p in frozen):
        return None
    products = cast(tuple[Tensor, ...], _Products.apply(x, len(hosts), *frozen, *inward))
    ys, read = [*products[: len(hosts)]], iter(products[len(hosts) :])
    for i, mixture in enumerate(mixtures):
        if mixture is not None:
            weighed = mixture.weigh(next(read))
            ys[i] = cast(Tensor, _Added.apply(ys[i], weighed, mixture.outward, slice(None)))
    return [y.view(*x.shape[:-1], y.shape[-1]) for y in ys]


class _Products(torch.autograd.Function):
    """Products of one ``x`` with frozen layers and with ``inward`` of the mixtures there.

    The gradient of ``x`` is summed in place: as wide as ``x`` are few other things in a pass.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        hosts: int,
        *matrices: Tensor,
    ) -> tuple[Tensor, ...]:
        frozen, inward, flat = matrices[: 2 * hosts], matrices[2 * hosts :], x.flatten(0, -2)
        ctx.save_for_backward(flat, *frozen[::2], *inward)
        ctx.hosts, ctx.shape = hosts, x.shape
        # The bits of a layer by itself, in tensors that may be changed: views may not.
        of = flat if x.is_contiguous() else x
        ys = [F.linear(of, *layer) for layer in zip(frozen[::2], frozen[1::2], strict=True)]
        return *ys, *(flat @ each for each in inward)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        *gradients: Tensor,
    ) -> tuple[Tensor | None, ...]:
        x, *matrices = ctx.saved_tensors
        weights, inward = matrices[: ctx.hosts], matrices[ctx.hosts :]
        wide = [gradient.flatten(0, -2) for gradient in gradients[: ctx.hosts]]
        narrow = gradients[ctx.hosts :]
        of_x, of_inward = None, [None] * len(inward)
        if ctx.needs_input_grad[0]:
            of_x = wide[0] @ weights[0]
            for gradient, weight in zip(wide[1:], weights[1:], strict=True):
                of_x.addmm_(gradient, weight)
            if inward:
                of_x.addmm_(torch.cat(narrow, dim=1), torch.cat(inward, dim=1).T)
            of_x = of_x.view(ctx.shape)
        if any(ctx.needs_input_grad[2:]):
            of_all = x.T @ torch.cat(narrow, dim=1)
            of_inward = [*of_all.split([each.shape[1] for each in narrow], dim=1)]
        return of_x, None, *[None] * (2 * ctx.hosts), *of_inward


def woven_sites(module: nn.Module) -> dict[str, WovenLinear]:
    """Return every woven layer inside ``module`` by the name of its site, in order."""
    return {m.site: m for m in module.modules() if isinstance(m, WovenLinear)}
