"""Synthetic files in the published layouts, made from the key lists of the released code."""

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pathweave.released.layout import CheckpointStage, Role, key_specs

GOLDEN = Path(__file__).parents[1] / "golden"
ORDER = ("video", "audio", "depth", "pc")
# Sizes of the released model (BERT-base, EVA-CLIP-g, Vicuna-7B), and small ones in their place.
SMALL = {768: 16, 1408: 24, 3072: 20, 30523: 257, 512: 18, 4096: 32, 8: 2, 32: 3}
SMALL_LAYERS, SMALL_HEADS = 3, 4
WIDTHS = {"image": 24, "video": 24, "audio": 16, "depth": 24, "point_cloud": 18}
ADAPTER = re.compile(r"(.*_adapter_list)\.(\d+)\.(.*)")
LAYER = re.compile(r"\.layer\.(\d+)\.")

Shape = tuple[int, ...]
Make = Callable[[str, Shape], Tensor]
"""A tensor from what it is: equal names give equal values."""


@cache
def key_list(modality: str, aliases: bool = True) -> Mapping[str, Shape]:
    """The keys and shapes of a released stage file."""
    with gzip.open(GOLDEN / f"checkpoint_keys_{modality}.json.gz") as file:
        lists = json.load(file)
    extra = lists["extra_after_forward"] if aliases else {}
    return {key: tuple(shape) for key, shape in {**lists["state_dict"], **extra}.items()}


@cache
def small_keys(modality: str, aliases: bool = True) -> Mapping[str, Shape]:
    """The same for a Q-Former of three layers with small widths."""
    return {
        key: tuple(SMALL.get(size, size) for size in shape)
        for key, shape in key_list(modality, aliases).items()
        if not (layer := LAYER.search(key)) or int(layer[1]) < SMALL_LAYERS
    }


@cache
def seeded(name: str, shape: Shape) -> Tensor:
    """Random values that depend on the name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


@cache
def expanded(name: str, shape: Shape) -> Tensor:
    """One number that depends on the name, in any shape, at no cost."""
    return seeded(name, (1,)).expand(shape) if shape else seeded(name, ())


def stage_state(
    position: int,
    keys: Callable[[str], Mapping[str, Shape]] = small_keys,
    make: Make = seeded,
    projector: Callable[[int, int], int] = lambda position, index: index,
) -> dict[str, Tensor]:
    """The file of one stage of a run.

    Args:
        position: Position of the stage.
        keys: Keys and shapes by modality.
        make: Maker of values.
        projector: Which stage trained the version of adapter ``index`` at the projector that the
            file of stage ``position`` holds.
    """
    made: dict[str, Tensor] = {}
    modality = ORDER[position]
    for key, shape in keys(modality).items():
        if "position_ids" in key:
            made[key] = torch.arange(shape[1])[None]
        elif ".middle_proj." in key:
            made[key] = made[alias_of(key, modality)]
        elif match := ADAPTER.fullmatch(key):
            place, index = match[1].removeprefix(modality), int(match[2])
            version = projector(position, index) if "llmProj" in place else min(index, position)
            trained_by = f"stage {version}" if index <= position else f"nobody, {modality}"
            made[key] = make(f"{place} {index} {match[3]} by {trained_by}", shape)
        elif is_shared(key):
            made[key] = make(key.removeprefix(modality), shape)
        else:
            made[key] = make(key, shape)
    return made


def is_shared(key: str) -> bool:
    """Whether a key belongs to the frozen connector."""
    stage = "_query_tokens|_ln\\.|_encoder_projection\\.|_in_adapter_list|_gate_adapter_"
    return not re.search(stage, key)


def alias_of(key: str, modality: str) -> str:
    """The in-adapter that a ``middle_proj`` repeats."""
    repeated = key.replace("_adapter_list", "_in_adapter_list").replace(".middle_proj", "")
    if modality == "pc":
        repeated = repeated.replace(".attention.self.value_in", ".attention.self.key_in")
    return repeated


def write_run(
    directory: Path, num_stages: int = 4, change: Callable[[dict, int], None] | None = None, **how
) -> list[Path]:
    """Write the files of a run as the authors' code does."""
    files = []
    for position in range(num_stages):
        state = stage_state(position, **how)
        if change is not None:
            change(state, position)
        files.append(directory / f"{ORDER[position]}.pth")
        torch.save({"model": state, "optimizer": {"state": {}}, "iters": 3}, files[-1])
    return files


def instructblip_state(
    modality: str = "image", width: int = 24, name: str = "", keys=small_keys, make: Make = seeded
) -> dict[str, Tensor]:
    """A file of X-InstructBLIP: no adapters, and cross-attention of the encoder's own width.

    Args:
        modality: Prefix of its keys; "" is BLIP-2's layout.
        width: Width of the encoder.
        name: What makes its weights differ from those of the stage files; "" makes them equal.
    """
    state = {}
    for key, shape in keys("video").items():
        if "adapter" in key or "position_ids" in key:
            continue
        shape = tuple(width if size == 24 else size for size in shape)
        theirs = key.removeprefix("video_")
        values = f"{name}_{theirs}" if is_shared(key) else f"{modality} {name} {theirs}"
        if modality:
            theirs = f"{modality}_{theirs}"
        state[theirs.replace("ln.", "ln_vision.") if not modality else theirs] = make(values, shape)
    return state


def random_state(stage: CheckpointStage, aliases: bool) -> dict[str, Tensor]:
    """The file of a stage: what is shared has values of its name alone."""
    made = {}
    for key, spec in key_specs(stage).items():
        if spec.role is Role.ALIAS:
            if aliases:
                made[key] = made[spec.names[0]]
            continue
        name = spec.names[0] if spec.names else key
        if spec.stage is not None and spec.stage <= stage.position:
            name = f"{spec.stage} {name}"
        elif spec.role is not Role.CONNECTOR:
            name = key
        made[key] = seeded(name, spec.shape)
        # Left out at the projector by one stage and summed by the others: here a zero map.
        if "llmProj_adapter_list.0.up_proj" in key:
            made[key] = torch.zeros(spec.shape)
    return made
