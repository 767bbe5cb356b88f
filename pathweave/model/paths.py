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
from pathweave.nn import Adapter, Experts, Mixture, Route
from pathweave.nn.adapter import InAdapterInit
from pathweave.nn.gate import GateKind
from pathweave.nn.kernels import KernelEncoder, KernelSpec
from pathweave.nn.patches import PatchEncoder, PatchSpec, SeriesReader
from pathweave.nn.positions import PositionKind, Positions
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
        sites: Patterns (``fnmatch``) of the hosts it adapts, such as ``*/self_attention/*`` or
            ``*/query_ffn/*``. A lone ``*`` stands for ``DEFAULT_SITES``.
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


def matches(site: str, patterns: Sequence[str]) -> bool:
    """Return whether a site's name matches one of the patterns; see ``PathSpec.sites``.

    Example:
        >>> matches("layer_0/query_ffn/expand", ["*"]), matches("projector", ["*"])
        (False, True)
    """
    named = [each for p in patterns for each in (DEFAULT_SITES if p == "*" else (p,))]
    return any(fnmatchcase(site, pattern) for pattern in named)


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
        hosts: Input and output width of every host that a path may adapt, by site.
        parts: Parts of the connector that a path may have for itself, by name.
    """

    def __init__(
        self,
        dim: int,
        encoder_width: int,
        hosts: Mapping[str, tuple[int, int]],
        parts: Mapping[str, nn.Module] | None = None,
    ):
        super().__init__()
        # A dict, not a ModuleDict: the parts are the connector's, which holds them already.
        self.parts = dict(parts or {})
        self.dim = dim
        self.encoder_width = encoder_width
        self.hosts = dict(hosts)
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
            PathError: If the name is taken or malformed, a predecessor is unknown, or a pattern of
                ``spec.sites`` matches no host, or a part of ``spec.own`` is unknown.
        """
        if not NAME.fullmatch(spec.name):
            raise PathError(
                "a path's name must be lower-case letters, digits and underscores, starting with "
                f"a letter, got {spec.name!r}"
            )
        if spec.name in self:
            raise PathError(f"a path's name must be new, got {spec.name!r} of {self.names}")
        for pattern in spec.sites if spec.rank else ():
            if not any(matches(site, (pattern,)) for site in self.hosts):
                raise PathError(
                    f"a pattern of sites must match a host, got {pattern!r}; hosts are "
                    f"{', '.join(self.hosts)}"
                )
        for part in spec.own:
            if part not in self.parts:
                raise PathError(
                    f"a path's own parts must be of {list(self.parts)}, got {part!r}; leave it out"
                )
        earlier = [self[name] for name in spec.predecessors]
        hosts = {site: widths for site, widths in self.hosts.items() if site not in without}
        path = ModalPath(spec, self.dim, self.encoder_width, hosts, earlier, self.parts)
        if queries_from is not None:
            source = self[queries_from].queries
            if source.shape == path.queries.shape:
                path.queries.data.copy_(source.data)
        self._paths.append(path)
        return path

    def drop(self, name: str) -> None:
        """Remove a path that no other path builds on.

        Raises:
            PathError: If the path is unknown or a predecessor of another.
        """
        path = self[name]
        heirs = [other.spec.name for other in self if name in other.spec.predecessors]
        if heirs:
            raise PathError(f"path {name!r} cannot be dropped: {heirs} build on it; drop them too")
        self._paths = nn.ModuleList(other for other in self if other is not path)

    def mixtures(self, name: str) -> dict[str, Mixture]:
        """Return the fused experts of a path at every site that it adapts."""
        path = self[name]
        earlier = [self[predecessor] for predecessor in path.spec.predecessors]
        fused = {}
        for site, experts in path.experts.items():
            adapters = [a for p in earlier if (a := p.adapter(site)) is not None]
            fused[site] = cast(Experts, experts).fuse(adapters)
        return fused

    def route(self, names: Sequence[str]) -> Route:
        """Return the route of a batch whose row i takes path ``names[i]``.

        Rows of one path should be neighbours: each run of equal names costs one small product per
        site.
        """
        mixtures = {name: self.mixtures(name) for name in dict.fromkeys(names)}
        runs = ((name, len(list(group))) for name, group in groupby(names))
        return Route(tuple((mixtures[name], count) for name, count in runs))
