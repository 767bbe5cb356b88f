"""Adapters of the released PathWeave Q-Former checkpoints, as paths.

The released layout keeps, at every site, one list of adapters over all modalities, one list of
in-adapters, and the gates of the modality that the checkpoint is for.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pathweave.errors import PathError
from pathweave.nn import Adapter, Experts
from pathweave.paths import Path, Paths, PathSpec

_SITE = {"query": "self.query", "key": "self.key", "value": "self.value", "output": "output.dense"}


def load_released_paths(
    state: Mapping[str, Tensor],
    paths: Paths,
    names: Sequence[str],
    spec: PathSpec,
    released_quirks: bool = False,
) -> Path:
    """Add the path of a released stage checkpoint, and its predecessors' adapters.

    Args:
        state: Tensors of the checkpoint's Q-Former, named ``bert.encoder.layer...``.
        paths: Where the paths are added; those of earlier stages that are missing are made from
            the adapters in this checkpoint (their in-adapters and gates are not in it).
        names: Names of all adapted modalities in the order of training; the checkpoint's is
            ``spec.name``, and those before it are its predecessors.
        spec: Sizes of the path.
        released_quirks: Reproduce two defects that the released point-cloud stage was trained
            with: in cross-attention its value experts have no effect, and in self-attention its
            value experts use the in-adapters of the keys.

    Returns:
        The new path, whose tensors under ``experts`` are those of the checkpoint.
    """
    index = list(names).index(spec.name)
    for i, name in enumerate(names[: index + 1]):
        if name not in paths:
            made = paths.expand(PathSpec(**{**vars(spec), "name": name, "predecessors": names[:i]}))
            for site, experts in made.experts.items():
                _load_adapter(experts.adapter, state, site, i)  # type: ignore[arg-type]
    path = paths[spec.name]
    if released_quirks:
        for site in [site for site in path.experts if site.endswith("cross_attention/value")]:
            del path.experts[site]
    for site in path.experts:
        _load_mixing(path.at(site), state, site, spec.name, released_quirks)  # type: ignore[arg-type]
    return path


def _released_site(site: str) -> str:
    """Return the released prefix of a site, such as ``...attention.self.query``."""
    layer, block, projection = site.split("/")
    block = {"self_attention": "attention", "cross_attention": "crossattention"}[block]
    number = layer.removeprefix("layer_")
    return f"bert.encoder.layer.{number}.{block}.{_SITE[projection]}"


def _take(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in state:
        raise PathError(f"a released checkpoint must hold {name}, got none; is it another stage's?")
    if state[name].shape != like.shape:
        raise PathError(
            f"{name} must have shape {tuple(like.shape)}, got {tuple(state[name].shape)}; "
            "the checkpoint is of another size"
        )
    return state[name]


@torch.no_grad()
def _copy(state: Mapping[str, Tensor], name: str, target: Tensor) -> None:
    target.copy_(_take(state, name, target))


def _load_adapter(adapter: Adapter, state: Mapping[str, Tensor], site: str, index: int) -> None:
    prefix = f"{_released_site(site)}_adapter_list.{index}"
    _copy(state, f"{prefix}.scale", adapter.scale)
    for ours, theirs in ((adapter.down, "down_proj"), (adapter.up, "up_proj")):
        _copy(state, f"{prefix}.{theirs}.weight", ours.weight)
        _copy(state, f"{prefix}.{theirs}.bias", ours.bias)


def _load_mixing(
    experts: Experts, state: Mapping[str, Tensor], site: str, name: str, released_quirks: bool
) -> None:
    """Load in-adapters and gates of one site."""
    source = site
    if released_quirks and site.endswith("self_attention/value"):
        source = site.replace("value", "key")
    for i, inner in enumerate(experts.in_adapters):
        prefix = f"{_released_site(source)}_in_adapter_list.{i}"
        _copy(state, f"{prefix}.weight", inner.weight)  # type: ignore[arg-type]
        _copy(state, f"{prefix}.bias", inner.bias)  # type: ignore[arg-type]
    if experts.gate is not None:
        block, projection = _released_site(site).rsplit(".", 1)
        _copy(state, f"{block}.{name}_gate_adapter_{projection}", experts.gate.weight)
        if experts.gate.noise_weight is not None:
            noise = f"{block}.{name}_noise_gate_adapter_{projection}"
            _copy(state, noise, experts.gate.noise_weight)
