"""Paths: everything that a modality adds to the connector, in one container each.

Trainable, counted, saved, loaded and dropped parameters of a modality are those of its
``ModalPath`` and nothing else. ``Paths`` holds all of them and hands out routes; it remembers no
active path.
"""

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.errors import PathError
from pathweave.model.llm_hosts import PREFIX, TAIL, dead_sites, summary
from pathweave.model.soft_vocabulary import Scope
from pathweave.nn import Adapter, Experts, Mixture, Route, woven_sites
from pathweave.nn.adapter import InAdapterInit
from pathweave.nn.gate import GateKind
from pathweave.nn.hooked import hook_linear
from pathweave.nn.kernels import KernelEncoder, KernelSpec
from pathweave.nn.patches import PatchEncoder, PatchSpec, SeriesReader
from pathweave.nn.positions import PositionKind, Positions
from pathweave.nn.woven import fuse
from pathweave.storage.tensors import HASHED_ONLY_IF_SET, hashed_settings, tensors_hash
from pathweave.validation import unknown

NAME = re.compile(r"[a-z][a-z0-9_]*")
QUERY_STD = 0.02
MIN_STD_SHARE = 0.1
# What the pattern "*" stands for: layers of feed-forward blocks want a pattern of their own.
DEFAULT_SITES = ("*/self_attention/*", "*/cross_attention/*", "projector")


@dataclass(frozen=True)
class PathSpec:
    """What a path is made of.

    Attributes:
        name: Name of the path: lower-case letters, digits, underscores.
        encoder_width: Width of the features that its encoder delivers.
        num_queries: Number of query tokens.
        predecessors: Earlier paths whose adapters it may use, in order.
        rank: Bottleneck width of its adapters; 0 adds none (the path a base was trained with).
        sites: Patterns (``fnmatch``) of the hosts it adapts, such as ``*/self_attention/*``,
            ``*/query_ffn/*`` or ``llm/*/self_attn/*``. A lone ``*`` stands for ``DEFAULT_SITES``.
        gate: Kind of its gates; None adds the experts up.
        top_k: Experts kept by a ``top_k`` gate.
        in_adapter: Initial value of its in-adapters; None places none.
        plain_sites: Patterns of the hosts where the experts are added up, with neither gates nor
            in-adapters, whatever ``gate`` and ``in_adapter`` say.
        norm_eps: Epsilon of its input norm.
        plain_rank: Bottleneck width of its adapters at ``plain_sites``; None is ``rank``.
        own: Parts of the connector, such as ``projector``, that it has for itself in place of the
            shared ones.
        positions: How the tokens of a medium are told their order; ``none`` is a set, or features
            that know their places already.
        columns: Tokens a row, where tokens lie row by row on a grid; None is one axis.
        patches: Patch encoder or kernel encoder of its own, for recordings that no frozen encoder
            reads.
        scope: Tokens that its adapters inside the language model correct.
    """

    name: str
    encoder_width: int
    num_queries: int
    predecessors: tuple[str, ...] = ()
    rank: int = 8
    sites: tuple[str, ...] = ("*",)
    gate: GateKind | None = "softmax"
    top_k: int = 2
    in_adapter: InAdapterInit | None = "zero"
    plain_sites: tuple[str, ...] = ()
    norm_eps: float = field(default=1e-5, metadata=HASHED_ONLY_IF_SET)
    plain_rank: int | None = field(default=None, metadata=HASHED_ONLY_IF_SET)
    own: tuple[str, ...] = field(default=(), metadata=HASHED_ONLY_IF_SET)
    positions: PositionKind = field(default="none", metadata=HASHED_ONLY_IF_SET)
    columns: int | None = field(default=None, metadata=HASHED_ONLY_IF_SET)
    patches: PatchSpec | KernelSpec | None = field(default=None, metadata=HASHED_ONLY_IF_SET)
    scope: Scope = field(default="onward", metadata=HASHED_ONLY_IF_SET)


def matches(site: str, patterns: Sequence[str]) -> bool:
    """Return whether a site's name matches one of the patterns; see ``PathSpec.sites``.

    Example:
        >>> matches("layer_0/query_ffn/expand", ["*"]), matches("projector", ["*"])
        (False, True)
        >>> matches("llm/layers/0/mlp/up_proj", ["*/mlp/*"])
        False
    """
    named = [each for p in patterns for each in (DEFAULT_SITES if p == "*" else (p,))]
    # Layers of a pretrained model want a pattern of their own too.
    foreign = next((start for start in (PREFIX, TAIL) if site.startswith(start)), "")
    return any(fnmatchcase(site, p) for p in named if p.startswith(foreign))


class ModalPath(nn.Module):
    """Everything that one modality adds: queries, input norm and projection, experts.

    Args:
        spec: What it is made of.
        dim: Width of the Q-Former.
        encoder_width: Width of features that the Q-Former's cross-attention takes.
        hosts: Input and output width of every host, by site.
        earlier: The predecessors, in order.
        parts: The shared parts of the connector, by name; those it has for itself are copied.
    """

    def __init__(
        self,
        spec: PathSpec,
        dim: int,
        encoder_width: int,
        hosts: Mapping[str, tuple[int, int]],
        earlier: Sequence["ModalPath"] = (),
        parts: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.spec = spec
        self.queries = nn.Parameter(torch.randn(spec.num_queries, dim) * QUERY_STD)
        own_width = spec.encoder_width
        self.patches: SeriesReader | None = None
        if spec.patches is not None:
            own_width = spec.patches.width
            self.patches = _reader(spec.patches, spec.encoder_width // 2)
        self.input_norm = nn.LayerNorm(own_width, eps=spec.norm_eps)
        self.input_projection: nn.Module = nn.Identity()
        if own_width != encoder_width:
            self.input_projection = nn.Linear(own_width, encoder_width)
        self.positions: nn.Module = nn.Identity()
        if spec.positions != "none":
            self.positions = Positions(spec.positions, encoder_width, spec.columns)
        self.own = nn.ModuleDict({name: copy.deepcopy((parts or {})[name]) for name in spec.own})
        self.experts = nn.ModuleDict()
        for site, (in_dim, out_dim) in hosts.items() if spec.rank else ():
            if matches(site, spec.sites):
                plain = matches(site, spec.plain_sites)
                self.experts[site] = Experts(
                    in_dim,
                    out_dim,
                    (plain and spec.plain_rank) or spec.rank,
                    earlier_ranks=[a.rank for p in earlier if (a := p.adapter(site)) is not None],
                    gate=None if plain else spec.gate,
                    top_k=spec.top_k,
                    in_adapter=None if plain else spec.in_adapter,
                )

    def experts_in_llm(self) -> bool:
        """Return whether it has experts inside the language model."""
        return any(site.startswith(PREFIX) for site in self.experts)

    def experts_at(self, site: str) -> Experts | None:
        """Return what the path owns at a site, or None."""
        return cast(Experts, self.experts[site]) if site in self.experts else None

    def adapter(self, site: str) -> Adapter | None:
        """Return the path's own adapter at a site, or None."""
        experts = self.experts_at(site)
        return None if experts is None else experts.adapter

    def project(
        self, units: Sequence[Float[Tensor, "_ own_width"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Normalise the features of units, bring them to the Q-Former's width, and place them.

        Raises:
            PathError: If the features have another width than the path was made for.
        """
        for features in units:
            if features.shape[-1] != self.spec.encoder_width:
                raise PathError(
                    f"path {self.spec.name!r} must be given features of width "
                    f"{self.spec.encoder_width}, got {features.shape[-1]}; name the encoder that "
                    "it was made for"
                )
        units = units if self.patches is None else self.patches(units)
        tokens = self.input_projection(self.input_norm(torch.cat(list(units))[None]))[0]
        return [self.positions(unit) for unit in tokens.split([len(unit) for unit in units])]

    @torch.no_grad()
    def standardise_input(self, units: Sequence[Float[Tensor, "_ own_width"]]) -> None:
        """Start the input norm so that each channel has mean 0 and deviation 1 over ``units``.

        A layer norm alone leaves sparse features dominated by a few loud channels; that slows down
        learning (docs/log.md). Channels that hardly vary are not blown up. A patch encoder
        keeps the statistics of the channels instead.
        """
        if self.patches is not None:
            self.patches.measure(units)
            return
        features = torch.cat(list(units))
        if (features == features[0]).all():  # one token, or all alike: there is nothing to go by
            return
        normed = F.layer_norm(features, features.shape[-1:], eps=self.spec.norm_eps)
        std, mean = torch.std_mean(normed, dim=0)
        scale = 1 / (std + MIN_STD_SHARE * std.mean())
        self.input_norm.weight.copy_(scale)
        self.input_norm.bias.copy_(-mean * scale)

    def count(self) -> dict[str, int]:
        """Return the number of parameters by kind; they add up to all of the path's."""
        sites = [cast(Experts, experts) for experts in self.experts.values()]
        counts = {
            "adapters": sum(_size(experts.adapter) for experts in sites),
            "in_adapters": sum(_size(experts.in_adapters) for experts in sites),
            "gates": sum(_size(experts.gate) for experts in sites if experts.gate is not None),
            "queries": self.queries.numel(),
            "input": sum(map(_size, (self.input_norm, self.input_projection, self.positions))),
        }
        if self.patches is not None:
            counts["patches"] = _size(self.patches)
        return counts | {"connector": _size(self.own)} if self.own else counts

    def content_hash(self) -> str:
        """Return the SHA-256 of the spec and every tensor: two equal paths have equal hashes."""
        settings = sorted(hashed_settings(self.spec).items())
        return tensors_hash(self.state_dict(), seed=repr(settings))


def _reader(spec: PatchSpec | KernelSpec, channels: int) -> SeriesReader:
    if isinstance(spec, KernelSpec):
        return KernelEncoder(spec, channels)
    return PatchEncoder(spec, channels)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class Paths(nn.Module):
    """All paths of a model, by name, in the order in which they were added.

    Args:
        dim: Width of the Q-Former.
        encoder_width: Width of features that the Q-Former's cross-attention takes.
        hosts: Input and output width of every host of ours that a path may adapt, by site.
        parts: Parts of the connector that a path may have for itself, by name.
        foreign: Layers of the language model that a path may adapt too, by site.
    """

    def __init__(
        self,
        dim: int,
        encoder_width: int,
        hosts: Mapping[str, tuple[int, int]],
        parts: Mapping[str, nn.Module] | None = None,
        foreign: Mapping[str, nn.Linear] | None = None,
    ):
        super().__init__()
        # Dicts, not ModuleDicts: parts and layers belong to others, which hold them already.
        self.parts = dict(parts or {})
        self.foreign = dict(foreign or {})
        self.dim = dim
        self.encoder_width = encoder_width
        widths = {site: (of.in_features, of.out_features) for site, of in self.foreign.items()}
        self.hosts = {**hosts, **widths}
        self._fused = _Fused()
        # A list, not a ModuleDict: a path may bear any name, also that of a Module's attribute.
        self._paths = nn.ModuleList()

    def __iter__(self) -> Iterator[ModalPath]:
        return iter(cast(ModalPath, path) for path in self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> ModalPath:
        for path in self:
            if path.spec.name == name:
                return path
        raise PathError(unknown("path", name, self.names))

    @property
    def names(self) -> list[str]:
        """Names of the paths, oldest first."""
        return [path.spec.name for path in self]

    def expand(
        self, spec: PathSpec, queries_from: str | None = None, without: Collection[str] = ()
    ) -> ModalPath:
        """Add a path; every earlier path computes exactly what it computed before.

        Args:
            spec: What the path is made of; its predecessors must be here.
            queries_from: Path whose query tokens the new ones start from, if as many.
            without: Hosts that it leaves alone, whatever ``spec.sites`` says.

        Raises:
            PathError: If the name is taken or malformed, a predecessor is unknown, a pattern of
                ``spec.sites`` matches no host, or hosts narrower than the rank, or a part of
                ``spec.own`` is unknown.
        """
        if not NAME.fullmatch(spec.name):
            raise PathError(
                "a path's name must be lower-case letters, digits and underscores, starting with "
                f"a letter, got {spec.name!r}"
            )
        if spec.name in self:
            raise PathError(f"a path's name must be new, got {spec.name!r} of {self.names}")
        for part in spec.own:
            if part not in self.parts:
                raise PathError(
                    f"a path's own parts must be of {list(self.parts)}, got {part!r}; leave it out"
                )
        hosts = self.hosts_of(spec)
        earlier = [self[name] for name in spec.predecessors]
        hosts = {site: widths for site, widths in hosts.items() if site not in without}
        path = ModalPath(spec, self.dim, self.encoder_width, hosts, earlier, self.parts)
        for site in path.experts:
            if site in self.foreign:
                hook_linear(self.foreign[site], site)
        if queries_from is not None:
            source = self[queries_from].queries
            if source.shape == path.queries.shape:
                path.queries.data.copy_(source.data)
        self._paths.append(path)
        return path

    def hosts_of(self, spec: PathSpec) -> dict[str, tuple[int, int]]:
        """Return the widths of the hosts that a path may adapt, and refuse patterns that name none.

        Raises:
            PathError: If a pattern of ``spec.sites`` names no host of use, or one that is too
                narrow.
        """
        # What a path has for itself it trains whole.
        owned = {site for name in spec.own for site in woven_sites(self.parts[name])}
        dead = dead_sites(list(self.foreign)) if spec.scope == "medium" else set()
        hosts = {site: w for site, w in self.hosts.items() if site not in owned | dead}
        for pattern in spec.sites if spec.rank else ():
            found = [site for site in self.hosts if matches(site, (pattern,))]
            if not found:
                raise PathError(
                    f"a pattern of sites must match a host, got {pattern!r}; hosts are "
                    f"{summary(list(self.hosts))} (routers, towers and heads are none)"
                )
            if not (used := [site for site in found if site in hosts]):
                why = (
                    "of the path's own parts, which it trains whole"
                    if owned.issuperset(found)
                    else "that no answer depends on under scope medium, which corrects the tokens "
                    "of the medium alone"
                )
                raise PathError(
                    f"a pattern of sites must match a host of use, got {pattern!r}, which matches "
                    f"layers {why}; name others, or another scope"
                )
            for site in used:
                plain = matches(site, spec.plain_sites)
                rank = (plain and spec.plain_rank) or spec.rank
                if rank > min(hosts[site]):
                    raise PathError(
                        f"rank must be at most the width of every host, got {rank} for {site} "
                        f"({hosts[site][0]} to {hosts[site][1]}); lower it, or name other sites"
                    )
        return hosts

    def drop(self, name: str) -> None:
        """Remove a path that no other path builds on.

        Raises:
            PathError: If the path is unknown or a predecessor of another.
        """
        path = self[name]
        heirs = [other.spec.name for other in self if name in other.spec.predecessors]
        if heirs:
            raise PathError(f"path {name!r} cannot be dropped: {heirs} build on it; drop them too")
        self._fused.forget(name)
        self._paths = nn.ModuleList(other for other in self if other is not path)

    def mixtures(self, name: str) -> dict[str, Mixture]:
        """Return the fused experts of a path at every site that it adapts.

        Those of frozen paths are kept.
        """
        path = self[name]
        return self._fused.of(path, [self[other] for other in path.spec.predecessors])

    def forget_fused(self) -> None:
        """Fuse all experts anew when they are used next, whatever is known of them."""
        self._fused = _Fused()

    def route(
        self, names: Sequence[str], mixtures: Mapping[str, Mapping[str, Mixture]] | None = None
    ) -> Route:
        """Return the route of a batch whose row i takes path ``names[i]``.

        Rows of one path should be neighbours: each run of equal names costs one small product per
        site.

        Args:
            names: The paths.
            mixtures: What ``mixtures`` gives for each of them, if it is known already.
        """
        known = mixtures or {name: self.mixtures(name) for name in dict.fromkeys(names)}
        runs = ((name, len(list(group))) for name, group in groupby(names))
        return Route(tuple((known[name], count) for name, count in runs))


class _Fused:
    """Fused experts of frozen paths, kept until a tensor that they are made of is changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, dict[str, Mixture]]] = {}

    def of(self, path: ModalPath, earlier: Sequence[ModalPath]) -> dict[str, Mixture]:
        everything = (path, *earlier)
        if any(p.requires_grad for each in everything for p in each.experts.parameters()):
            return _fuse(path, earlier)
        tensors = (p for each in everything for p in each.experts.parameters())
        state = path.training, [(p.data_ptr(), p._version, p.device) for p in tensors]
        kept, mixtures = self._kept.get(path.spec.name, (None, {}))
        if kept != state:
            with torch.inference_mode(False):
                mixtures = _fuse(path, earlier)
            self._kept[path.spec.name] = state, mixtures
        return mixtures

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)


def _fuse(path: ModalPath, earlier: Sequence[ModalPath]) -> dict[str, Mixture]:
    hosts = [
        (cast(Experts, experts), [a for p in earlier if (a := p.adapter(site)) is not None])
        for site, experts in path.experts.items()
    ]
    return dict(zip(path.experts, fuse(hosts), strict=True))
