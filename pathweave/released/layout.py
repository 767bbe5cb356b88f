"""The table of keys: what every key of a published file is, for reading and for writing.

The modalities here are data of a foreign format: nothing else in the package knows them. In some
stages the released code departs from its plan.

Index legend: a list ``..._adapter_list`` has one adapter per adapted stage, ``..._in_adapter_list``
one in-adapter per stage but the last, both in order of training. Stage k uses the adapters 0..k and
the in-adapters 0..k-1; what lies beyond was never trained.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

import torch

from pathweave.bases.qformer_names import lavis_name
from pathweave.model.paths import matches
from pathweave.nn import Projector, QFormer, QFormerConfig, woven_sites
from pathweave.nn.projector import PROJECTOR_SITE

DEAD_VALUES, MISLED_VALUES = "cross_attention/value", "self_attention/value"
KeySpecs = Iterator[tuple[str, "KeySpec"]]


PATH_NAMES = {"": "image", "pc": "point_cloud"}
"""Our names of modalities that are called otherwise in files (BLIP-2's keys bear none at all)."""

VALUE_DEFECT = frozenset({"pc"})
"""Stages whose value experts were trained without effect: in cross-attention they are added to
keys already used; in self-attention they run through the in-adapters of the keys."""

PROJECTOR_DEFECT: dict[str, tuple[int, ...]] = {"depth": (0,)}
"""Stages that leave these adapters out at the projector, and train the other ones again."""

PROJECTORS = ("llm_proj", "opt_proj", "t5_proj")
"""BLIP-2's names of the projector, by language model."""

OTHER_PARTS = re.compile(
    r"(?:\w+_)?encoder\.|(?:llm|opt|t5)_model\.|(?:\w+_)?Qformer\.cls\."
    r"|(?:vision_proj|text_proj|itm_head)\.|temp$"
)
"""Frozen encoder, language model (or their buffers) and heads for pretraining."""

_PREFIX = re.compile(r"(?:(\w+)_)?Qformer\.bert\.")


def path_name(prefix: str) -> str:
    """Return our name of a modality of a file.

    Example:
        >>> path_name("pc"), path_name("audio")
        ('point_cloud', 'audio')
    """
    return PATH_NAMES.get(prefix, prefix)


def file_prefix(name: str) -> str:
    """Return the name that a path's modality has in files.

    Example:
        >>> file_prefix("point_cloud"), file_prefix("image")
        ('pc', 'image')
    """
    theirs = {ours: theirs for theirs, ours in PATH_NAMES.items() if theirs}
    return theirs.get(name, name)


def prefixes(keys: list[str]) -> list[str]:
    """Return the modalities whose Q-Former is among ``keys``; "" is one without a name."""
    found = (match for key in keys if (match := _PREFIX.match(key)))
    return list(dict.fromkeys(match[1] or "" for match in found))


def with_prefix(prefix: str, name: str) -> str:
    """Return a key of a modality.

    Example:
        >>> with_prefix("audio", "ln.weight"), with_prefix("", "query_tokens")
        ('audio_ln.weight', 'query_tokens')
    """
    return f"{prefix}_{name}" if prefix else name


class Role(StrEnum):
    """What becomes of a tensor of a file."""

    CONNECTOR = "connector"
    PATH = "path"
    PREDECESSOR = "predecessor"
    ALIAS = "alias"
    FUTURE = "future"
    NO_EFFECT = "no effect"
    BUFFER = "buffer"
    OTHER = "other part"


@dataclass(frozen=True)
class KeySpec:
    """What a key is.

    Attributes:
        role: What becomes of it.
        shape: Its shape in the file.
        names: Where it goes in the connector or in the path; for an alias the key it repeats.
        stage: Position of the stage that trained it.
        optional: Whether a file may lack it.
    """

    role: Role
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    stage: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class CheckpointStage:
    """Sizes of a file, from which all its keys follow.

    Attributes:
        prefix: Modality in the keys; "" for BLIP-2.
        shape: Sizes of the Q-Former.
        llm_dim: Width of the language model's embeddings.
        num_queries: Number of query tokens.
        own_width: Width of the encoder's features.
        projector: Name of the projector.
        position: Position among the stages with adapters; -1 for a file without.
        num_adapters: Length of the lists of adapters.
        num_in_adapters: Length of the lists of in-adapters.
        rank: Bottleneck width of the adapters; 0 for a file without.
        quirks: Whether to compute what the released code computes where that departs from plan.
    """

    prefix: str
    shape: QFormerConfig
    llm_dim: int
    num_queries: int
    own_width: int
    projector: str = "llm_proj"
    position: int = -1
    num_adapters: int = 0
    num_in_adapters: int = 0
    rank: int = 0
    quirks: bool = True

    @property
    def name(self) -> str:
        """Name of the path."""
        return path_name(self.prefix)

    @property
    def has_value_defect(self) -> bool:
        """Whether its value experts are to be read as the released code uses them."""
        return self.quirks and self.position > 0 and self.prefix in VALUE_DEFECT

    @property
    def projector_skips(self) -> tuple[int, ...]:
        """Adapters of earlier stages that it leaves out at the projector."""
        return PROJECTOR_DEFECT.get(self.prefix, ()) if self.quirks and self.position > 0 else ()

    def is_dead(self, site: str) -> bool:
        """Return whether its value experts at a site have no effect."""
        return self.has_value_defect and site.endswith(DEAD_VALUES)

    def key(self, name: str) -> str:
        """Return a key of the file."""
        return with_prefix(self.prefix, name)

    def qformer(self, name: str) -> str:
        """Return a key of the file's Q-Former."""
        return self.key(f"Qformer.bert.{name}")


@cache
def hosts(shape: QFormerConfig, llm_dim: int) -> dict[str, tuple[int, int]]:
    """Return input and output width of every layer that a path may adapt, by site."""
    with torch.device("meta"):
        parts = QFormer(shape), Projector(shape.dim, llm_dim)
    return {
        site: (layer.host.in_features, layer.host.out_features)
        for part in parts
        for site, layer in woven_sites(part).items()
        if matches(site, ("*",))
    }


@cache
def qformer_shapes(shape: QFormerConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a Q-Former, by our name."""
    with torch.device("meta"):
        qformer = QFormer(shape)
    return {name: tuple(tensor.shape) for name, tensor in qformer.state_dict().items()}


@cache
def key_specs(stage: CheckpointStage) -> Mapping[str, KeySpec]:
    """Return what every key of a stage's file is; parts of other models are not among them."""
    made = dict(_shared_and_input(stage))
    if stage.position >= 0:
        for site, (in_dim, out_dim) in hosts(stage.shape, stage.llm_dim).items():
            if site == PROJECTOR_SITE:
                made |= _adapters(stage, stage.key("llmProj"), site, in_dim, out_dim)
                continue
            ours = site.replace("layer_", "layers.").replace("/", ".")
            base = stage.qformer(lavis_name(f"{ours}.host.weight").removesuffix(".weight"))
            made |= _adapters(stage, base, site, in_dim, out_dim)
            made |= _in_adapters(stage, base, site)
            made |= _gates(stage, base, site, in_dim)
    return MappingProxyType(made)


def _linear(
    key: str, role: Role, name: str, out_dim: int, in_dim: int, stage: int | None = None
) -> KeySpecs:
    yield f"{key}.weight", KeySpec(role, (out_dim, in_dim), (f"{name}.weight",), stage)
    yield f"{key}.bias", KeySpec(role, (out_dim,), (f"{name}.bias",), stage)


def _shared_and_input(stage: CheckpointStage) -> KeySpecs:
    """Return the keys that every file has: the connector, and what a path has without adapters."""
    shape, own = stage.shape, stage.own_width
    for ours, size in qformer_shapes(shape).items():
        key = stage.qformer(lavis_name(ours))
        yield key, KeySpec(Role.CONNECTOR, size, (f"qformer.{ours}",))
    if shape.vocab_size is not None:
        positions = KeySpec(Role.BUFFER, (1, shape.max_positions), optional=True)
        yield stage.qformer("embeddings.position_ids"), positions
    projector, ours = stage.key(stage.projector), "projector.linear.host"
    yield from _linear(projector, Role.CONNECTOR, ours, stage.llm_dim, shape.dim)
    queries = (1, stage.num_queries, shape.dim)
    yield stage.key("query_tokens"), KeySpec(Role.PATH, queries, ("queries",))
    norm = stage.key("ln") if stage.prefix else "ln_vision"
    for kind in ("weight", "bias"):
        yield f"{norm}.{kind}", KeySpec(Role.PATH, (own,), (f"input_norm.{kind}",))
    if own != shape.encoder_width:
        key = stage.key("encoder_projection")
        yield from _linear(key, Role.PATH, "input_projection", shape.encoder_width, own)


def _adapters(stage: CheckpointStage, base: str, site: str, in_dim: int, out_dim: int) -> KeySpecs:
    """Return the keys of the list of adapters at a site.

    The own adapter of a stage is its path's, unless nothing passes through it (``DEAD_VALUES``).
    Earlier ones are there as their stages left them; later ones are allocated and untrained.
    """
    position = stage.position
    for index in range(max(stage.num_adapters, position + 1)):
        role = Role.FUTURE if index > position else Role.PREDECESSOR
        if index == position:
            role = Role.NO_EFFECT if stage.is_dead(site) else Role.PATH
        if site == PROJECTOR_SITE and index in stage.projector_skips:
            role = Role.NO_EFFECT
        key, name = f"{base}_adapter_list.{index}", f"experts.{site}.adapter"
        yield f"{key}.scale", KeySpec(role, (1,), (f"{name}.scale",), index)
        yield from _linear(f"{key}.down_proj", role, f"{name}.down", stage.rank, in_dim, index)
        yield from _linear(f"{key}.up_proj", role, f"{name}.up", out_dim, stage.rank, index)


def _in_adapters(stage: CheckpointStage, base: str, site: str) -> KeySpecs:
    """Return the keys of the list of in-adapters at a site, and those that repeat them.

    A forward pass of the released code hangs each in-adapter into the adapter that it follows, as
    its ``middle_proj``: a file saved after one has it a second time. With the value defect those of
    the keys hang in the adapters of the values too, so what the keys trained goes to both.
    """
    position, rank = stage.position, stage.rank
    misled = stage.has_value_defect and site.endswith(MISLED_VALUES)
    misleads = stage.has_value_defect and site.endswith(MISLED_VALUES.replace("value", "key"))
    source = f"{base.removesuffix('value')}key" if misled else base
    role = Role.NO_EFFECT if stage.is_dead(site) or misled else Role.PATH
    for index in range(max(stage.num_in_adapters, position)):
        for kind, shape in (("weight", (rank, rank)), ("bias", (rank,))):
            names = [f"experts.{site}.in_adapters.{index}.{kind}"]
            if misleads:
                names.append(names[0].replace("/key.", "/value."))
            now = Role.FUTURE if index >= position else role
            yield f"{base}_in_adapter_list.{index}.{kind}", KeySpec(now, shape, tuple(names))
            if index < position:
                repeats = (f"{source}_in_adapter_list.{index}.{kind}",)
                alias = KeySpec(Role.ALIAS, shape, repeats, optional=True)
                yield f"{base}_adapter_list.{index}.middle_proj.{kind}", alias


def _gates(stage: CheckpointStage, base: str, site: str, in_dim: int) -> KeySpecs:
    """Return the keys of the gate at a site, which the first stage does not have."""
    if stage.position == 0:
        return
    block, projection = base.rsplit(".", 1)
    role = Role.NO_EFFECT if stage.is_dead(site) else Role.PATH
    for theirs, ours in (("gate", "weight"), ("noise_gate", "noise_weight")):
        key = f"{block}.{stage.prefix}_{theirs}_adapter_{projection}"
        yield key, KeySpec(role, (in_dim, stage.position + 1), (f"experts.{site}.gate.{ours}",))
