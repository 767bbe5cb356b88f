"""A published file with all its keys accounted for; a few tensors give the sizes of all others.

Nothing that is in a file is run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pathweave.errors import PathError
from pathweave.nn import QFormerConfig
from pathweave.released.layout import (
    OTHER_PARTS,
    PROJECTORS,
    CheckpointStage,
    KeySpec,
    Role,
    key_specs,
    prefixes,
    with_prefix,
)
from pathweave.storage.torch_files import ForeignFile

QUIRKS = "released_quirks"
"""Entry of the metadata of the files we write: whether they are to be read with the quirks."""
CHECKPOINT = ForeignFile("a whole checkpoint (.pth, .safetensors)", "download it again", PathError)

HEAD_DIM = 64  # of BERT, which every published Q-Former is shaped after
MAX_POSITIONS = 512


@dataclass(frozen=True)
class TensorFile:
    """What a checkpoint holds.

    Attributes:
        file: The file.
        tensors: Its tensors; they stay on disk until they are used.
        beside: Entries beside the model, such as the state of the optimiser.
        quirks: Whether the file says that it was trained with the defects of the released code;
            None if it does not say.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    beside: tuple[str, ...] = ()
    quirks: bool | None = None


def read_tensors(file: Path) -> TensorFile:
    """Read a checkpoint: safetensors, or a pickle of tensors and plain values alone.

    Args:
        file: ``.safetensors``, or a file of ``torch.save``, with or without an outer entry
            ``model``.

    Raises:
        PathError: If there is no such file, it is damaged or no checkpoint, or its pickle holds
            anything but tensors and plain values.
    """
    if not file.is_file():
        raise PathError(f"{file} must be a checkpoint, got no such file; correct the path")
    if file.suffix == ".safetensors":
        opened = CHECKPOINT.open_safetensors(file)
        said = (opened.metadata() or {}).get(QUIRKS)
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return TensorFile(file, tensors, quirks=None if said is None else said == "true")
    content = CHECKPOINT.load(file)
    if not isinstance(content, dict):
        raise PathError(
            f"{file} must hold named tensors, got a {type(content).__name__}; give a checkpoint"
        )
    inner = content.get("model")
    beside = tuple(str(key) for key in content if key != "model")
    if not isinstance(inner, dict):
        inner, beside = content, ()
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise PathError(
                f"{file} must hold named tensors, got a {type(value).__name__} under {name!r}; "
                "give the checkpoint of a model"
            )
    return TensorFile(file, inner, beside)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(TensorFile):
    """One file.

    Attributes:
        stage: Its sizes.
        specs: What each of its keys is.
    """

    stage: CheckpointStage
    specs: Mapping[str, KeySpec]

    @property
    def name(self) -> str:
        """Name of the path."""
        return self.stage.name

    def keys(self, role: Role) -> list[str]:
        """Return the keys that the file has of one role."""
        return [key for key, spec in self.specs.items() if spec.role is role]

    def state(self, role: Role) -> dict[str, Tensor]:
        """Return the tensors of one role under the names of what they go to."""
        return {
            name: self.tensors[key] for key in self.keys(role) for name in self.specs[key].names
        }

    def adapter(self, site: str, index: int) -> dict[str, Tensor]:
        """Return an adapter of the file's list at a site."""
        place = f"experts.{site}.adapter."
        return {
            spec.names[0].removeprefix(place): self.tensors[key]
            for key, spec in self.specs.items()
            if spec.stage == index and spec.names[0].startswith(place)
        }


def parse_checkpoint(
    read: TensorFile, quirks: bool = True, num_heads: int | None = None
) -> Checkpoint:
    """Return a file with all its keys accounted for.

    Args:
        read: What was read.
        quirks: Whether it is a file of the released code, which departs from its plan in places.
        num_heads: Heads of the Q-Former; None is one for every 64 channels, as in BERT.

    Raises:
        PathError: Naming the first key that is missing, unexpected, of another shape or not finite,
            or an alias that differs from what it repeats.
    """
    stage = replace(_read_stage(read, num_heads), quirks=quirks)
    expected = key_specs(stage)
    specs = {key: s for key, s in expected.items() if key in read.tensors or not s.optional}
    for key, spec in specs.items():
        tensor = _tensor(read, key)
        if tensor.shape != spec.shape:
            raise PathError(
                f"{read.file}: {key} must have shape {spec.shape}, got {tuple(tensor.shape)}; the "
                "checkpoint is of another width"
            )
        # As it will be used: a value of a wider type may be too large for it.
        finite = tensor.float().isfinite()
        if not finite.all():
            raise PathError(
                f"{read.file}: {key} must be finite, got {tensor[~finite][0].item()} in "
                f"{int((~finite).sum())} of {finite.numel()} values; the training that wrote it "
                "has diverged, or the file is damaged: give an earlier checkpoint"
            )
    others = [key for key in read.tensors if key not in expected]
    if unexpected := [key for key in others if not OTHER_PARTS.match(key)]:
        raise PathError(
            f"{read.file} must hold no other key than those of a stage, got {unexpected[0]} "
            f"({len(unexpected)} such); it is a checkpoint of another layout"
        )
    for key, spec in specs.items():
        if spec.role is Role.ALIAS and not same(read.tensors[key], read.tensors[spec.names[0]]):
            without = "--no-quirks" if stage.has_value_defect else "--quirks"
            raise PathError(
                f"{read.file}: {key} must repeat {spec.names[0]}, got other values; the file is "
                f"damaged, or to be read with {without}"
            )
    specs |= {key: KeySpec(Role.OTHER, tuple(read.tensors[key].shape)) for key in others}
    return Checkpoint(**vars(read), stage=stage, specs=specs)


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same shape and values, whatever their types."""
    return a is b or torch.equal(a.float(), b.float())


def _tensor(read: TensorFile, key: str) -> Tensor:
    if key not in read.tensors:
        raise PathError(f"{read.file} must hold {key}, got none; the checkpoint is incomplete")
    return read.tensors[key]


def _size(read: TensorFile, key: str, axis: int, axes: int = 2) -> int:
    shape = tuple(_tensor(read, key).shape)
    if len(shape) != axes or not all(shape):
        raise PathError(
            f"{read.file}: {key} must have {axes} axes, got shape {shape}; the checkpoint is of "
            "another layout"
        )
    return shape[axis]


def _numbers(read: TensorFile, before: str, after: str) -> list[int]:
    """Return the numbers that keys have between two parts, from the smallest."""
    pattern = re.compile(rf"{re.escape(before)}(\d+)\.{re.escape(after)}")
    return sorted({int(found[1]) for key in read.tensors if (found := pattern.match(key))})


def _read_stage(read: TensorFile, num_heads: int | None) -> CheckpointStage:
    """Return the sizes of a file, off the shapes of a few of its tensors."""
    found = prefixes(list(read.tensors))
    if len(found) != 1:
        what = ", ".join(found) if found else f"keys such as {next(iter(read.tensors), 'none')}"
        raise PathError(
            f"{read.file} must hold one Q-Former (keys MODALITY_Qformer.bert... or "
            f"Qformer.bert...), got {what}; give the file of one modality"
        )
    key = partial(with_prefix, found[0])
    weights = {key(f"{name}.weight"): name for name in (PROJECTORS[:1] if found[0] else PROJECTORS)}
    if not (there := [weight for weight in weights if weight in read.tensors]):
        raise PathError(
            f"{read.file} must hold a projector ({' or '.join(weights)}), got none; give "
            "a checkpoint that was trained with a language model"
        )
    stage = CheckpointStage(
        prefix=found[0],
        shape=_read_shape(read, key("Qformer.bert."), num_heads),
        llm_dim=_size(read, there[0], 0),
        num_queries=_size(read, key("query_tokens"), 1, axes=3),
        own_width=_size(read, key("ln.weight") if found[0] else "ln_vision.weight", 0, axes=1),
        projector=weights[there[0]],
    )
    block = key("Qformer.bert.encoder.layer.0.attention.self.")
    adapters = _numbers(read, f"{block}query_adapter_list.", "")
    if not adapters:
        return stage
    in_adapters = _numbers(read, f"{block}query_in_adapter_list.", "")
    gate = f"{block}{found[0]}_gate_adapter_query"  # a channel for each stage up to this one
    return replace(
        stage,
        position=_size(read, gate, 1) - 1 if gate in read.tensors else 0,
        num_adapters=adapters[-1] + 1,
        num_in_adapters=max(in_adapters, default=-1) + 1,
        rank=_size(read, f"{block}query_adapter_list.0.down_proj.weight", 0),
    )


def _read_shape(read: TensorFile, bert: str, num_heads: int | None) -> QFormerConfig:
    layers, first = f"{bert}encoder.layer.", f"{bert}encoder.layer.0."
    words = f"{bert}embeddings.word_embeddings.weight"
    positions = f"{bert}embeddings.position_embeddings.weight"
    dim = _size(read, f"{first}attention.self.query.weight", 0)
    heads = num_heads or dim // HEAD_DIM
    if not heads or dim % heads or (num_heads is None and dim % HEAD_DIM):
        raise PathError(
            f"{read.file} must have a Q-Former whose heads divide its width {dim}, got "
            f"{num_heads or f'heads of {HEAD_DIM}'}; give the right --heads"
        )
    num_layers = _numbers(read, layers, "")[-1] + 1
    attends = _numbers(read, layers, "crossattention.self.key.weight")
    has_text = words in read.tensors
    return QFormerConfig(
        dim=dim,
        num_layers=num_layers,
        num_heads=heads,
        hidden_dim=_size(read, f"{first}intermediate_query.dense.weight", 0),
        encoder_width=_size(read, f"{first}crossattention.self.key.weight", 1),
        cross_attention_every=attends[1] if len(attends) > 1 else num_layers,
        vocab_size=_size(read, words, 0) if has_text else None,
        max_positions=_size(read, positions, 0) if has_text else MAX_POSITIONS,
    )
