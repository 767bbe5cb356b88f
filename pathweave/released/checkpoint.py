"""A published file with all its keys accounted for; a few tensors give the sizes of all others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pathweave.errors import PathError
from pathweave.nn import QFormerConfig
from pathweave.released.layout import CheckpointStage, KeySpec, Role, key_specs
from pathweave.released.names import OTHER_PARTS, PROJECTORS, prefixes, with_prefix
from pathweave.released.read import TensorFile

HEAD_DIM = 64  # of BERT, which every published Q-Former is shaped after
MAX_POSITIONS = 512


@dataclass(frozen=True)
class Checkpoint:
    """One file.

    Attributes:
        file: The file.
        tensors: Its tensors by key.
        stage: Its sizes.
        specs: What each of its keys is.
        others: Keys of parts that belong to other models.
        beside: Entries of the file beside the model.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    stage: CheckpointStage
    specs: Mapping[str, KeySpec]
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the path."""
        return self.stage.name

    @property
    def position(self) -> int:
        """Position among the stages with adapters; -1 for a file without."""
        return -1 if self.stage.position is None else self.stage.position

    def keys(self, role: Role) -> list[str]:
        """Return the keys that the file has of one role."""
        if role is Role.OTHER:
            return list(self.others)
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
    stage = replace(_Sizes(read).stage(num_heads), quirks=quirks)
    expected = key_specs(stage)
    for key, spec in expected.items():
        if key not in read.tensors and not spec.optional:
            raise PathError(f"{read.file} must hold {key}, got none; the checkpoint is incomplete")
    unexpected = [key for key in read.tensors if key not in expected]
    others = tuple(key for key in unexpected if OTHER_PARTS.match(key))
    for key in unexpected:
        if key not in others:
            count = len(unexpected) - len(others)
            raise PathError(
                f"{read.file} must hold no other key than those of a stage, got {key} ({count} "
                "such); it is a checkpoint of another layout"
            )
    present = {key: spec for key, spec in expected.items() if key in read.tensors}
    _check_tensors(read, present)
    checkpoint = Checkpoint(read.file, read.tensors, stage, present, others, read.beside)
    for key in checkpoint.keys(Role.ALIAS):
        source = present[key].names[0]
        if not same(read.tensors[key], read.tensors[source]):
            without = "--no-quirks" if stage.has_value_defect else "--quirks"
            raise PathError(
                f"{read.file}: {key} must repeat {source}, got other values; the file is damaged, "
                f"or to be read with {without}"
            )
    return checkpoint


def _check_tensors(read: TensorFile, expected: Mapping[str, KeySpec]) -> None:
    for key, spec in expected.items():
        tensor = read.tensors[key]
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


def same(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors have the same shape and values, whatever their types."""
    return a is b or torch.equal(a.float(), b.float())


class _Sizes:
    """Reader of sizes off the shapes of a file's tensors."""

    def __init__(self, read: TensorFile) -> None:
        self.read = read
        found = prefixes(list(read.tensors))
        if len(found) != 1:
            what = ", ".join(found) if found else f"keys such as {next(iter(read.tensors), 'none')}"
            raise PathError(
                f"{read.file} must hold one Q-Former (keys MODALITY_Qformer.bert... or "
                f"Qformer.bert...), got {what}; give the file of one modality"
            )
        self.prefix = found[0]

    def stage(self, num_heads: int | None) -> CheckpointStage:
        shape = self._shape(num_heads)
        projector = self._projector()
        norm = self._key("ln.weight") if self.prefix else "ln_vision.weight"
        sizes = CheckpointStage(
            prefix=self.prefix,
            shape=shape,
            llm_dim=self._size(self._key(f"{projector}.weight"), 0, axes=2),
            num_queries=self._size(self._key("query_tokens"), 1, axes=3),
            own_width=self._size(norm, 0, axes=1),
            projector=projector,
        )
        first = self._layer(0, "attention.self.query")
        num_adapters = self._count(rf"{re.escape(first)}_adapter_list\.(\d+)\.")
        if not num_adapters:
            return sizes
        gate = self._layer(0, f"attention.self.{self.prefix}_gate_adapter_query")
        gated = gate in self.read.tensors
        return replace(
            sizes,
            position=self._size(gate, 1, axes=2) - 1 if gated else 0,
            num_adapters=num_adapters,
            num_in_adapters=self._count(rf"{re.escape(first)}_in_adapter_list\.(\d+)\."),
            rank=self._size(f"{first}_adapter_list.0.down_proj.weight", 0, axes=2),
        )

    def _shape(self, num_heads: int | None) -> QFormerConfig:
        dim = self._size(self._layer(0, "attention.self.query.weight"), 0, axes=2)
        words = self._key("Qformer.bert.embeddings.word_embeddings.weight")
        positions = self._key("Qformer.bert.embeddings.position_embeddings.weight")
        layers = re.escape(self._key("Qformer.bert.encoder.layer."))
        attends = sorted(
            {int(n) for n in self._matches(rf"{layers}(\d+)\.crossattention\.self\.key\.weight")}
        )
        num_layers = self._count(rf"{layers}(\d+)\.")
        text = words in self.read.tensors
        return QFormerConfig(
            dim=dim,
            num_layers=num_layers,
            num_heads=self._heads(dim, num_heads),
            hidden_dim=self._size(self._layer(0, "intermediate_query.dense.weight"), 0, axes=2),
            encoder_width=self._size(self._layer(0, "crossattention.self.key.weight"), 1, axes=2),
            cross_attention_every=attends[1] if len(attends) > 1 else num_layers,
            vocab_size=self._size(words, 0, axes=2) if text else None,
            max_positions=self._size(positions, 0, axes=2) if text else MAX_POSITIONS,
        )

    def _heads(self, dim: int, num_heads: int | None) -> int:
        heads = num_heads or dim // HEAD_DIM
        if not heads or dim % heads or (num_heads is None and dim % HEAD_DIM):
            raise PathError(
                f"{self.read.file} must have a Q-Former whose heads divide its width {dim}, got "
                f"{num_heads or f'heads of {HEAD_DIM}'}; give the right --heads"
            )
        return heads

    def _projector(self) -> str:
        names = ("llm_proj",) if self.prefix else PROJECTORS
        for name in names:
            if self._key(f"{name}.weight") in self.read.tensors:
                return name
        wanted = " or ".join(self._key(f"{name}.weight") for name in names)
        raise PathError(
            f"{self.read.file} must hold a projector ({wanted}), got none; give a checkpoint that "
            "was trained with a language model"
        )

    def _key(self, name: str) -> str:
        return with_prefix(self.prefix, name)

    def _layer(self, number: int, name: str) -> str:
        return self._key(f"Qformer.bert.encoder.layer.{number}.{name}")

    def _size(self, key: str, axis: int, axes: int) -> int:
        if key not in self.read.tensors:
            raise PathError(
                f"{self.read.file} must hold {key}, got none; the checkpoint is incomplete"
            )
        shape = tuple(self.read.tensors[key].shape)
        if len(shape) != axes or not all(shape):
            raise PathError(
                f"{self.read.file}: {key} must have {axes} axes, got shape {shape}; the checkpoint "
                "is of another layout"
            )
        return shape[axis]

    def _matches(self, pattern: str) -> list[str]:
        return [found[1] for key in self.read.tensors if (found := re.match(pattern, key))]

    def _count(self, pattern: str) -> int:
        return max((int(number) for number in self._matches(pattern)), default=-1) + 1
