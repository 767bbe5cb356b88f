"""Whisper tiny.en: the encoder alone, under the names transformers gives its parameters."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pathweave.bases.convert.ctranslate2 import read_ctranslate2
from pathweave.bases.convert.tensors import write_model

_PREFIX = "model.encoder."
# Of the arrays of CTranslate2 those that are weights, and what is renamed in them.
_TENSOR = re.compile(r"encoder/.*/(weight|bias|gamma|beta|encodings)")
_RENAMED = {
    "position_encodings/encodings": "embed_positions/weight",
    r"layer_(\d+)": r"layers/\1",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": "self_attn/qkv_proj",
    "self_attention/linear_1": "self_attn/out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "gamma": "weight",
    "beta": "bias",
}
TINY_EN = {
    "width": 384,
    "num_layers": 4,
    "num_heads": 6,
    "num_mels": 80,
    "rate": 16000,
    "window": 400,
    "hop": 160,
    "max_positions": 1500,
}


def convert_whisper(source: Path, out: Path) -> None:
    """Convert ``model.bin`` (CTranslate2) or ``model.safetensors`` to the encoder in float32.

    The published weights are float16, so float32 holds them exactly.
    """
    if (source / "model.bin").exists():
        tensors = _from_ctranslate2(read_ctranslate2(source / "model.bin"))
    else:
        published = load_file(source / "model.safetensors")
        tensors = {
            name.removeprefix(_PREFIX): value.float()
            for name, value in published.items()
            if name.startswith(_PREFIX)
        }
    write_model(out / "model.safetensors", tensors)
    (out / "config.json").write_text(json.dumps(TINY_EN, indent=2) + "\n", encoding="utf-8")


def _from_ctranslate2(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, values in arrays.items():
        if not _TENSOR.fullmatch(name):
            continue
        own = name.removeprefix("encoder/")
        for theirs, ours in _RENAMED.items():
            own = re.sub(theirs, ours, own)
        tensors[own.replace("/", ".")] = torch.from_numpy(values.astype(np.float32))
    for name in [name for name in tensors if ".qkv_proj." in name]:
        # Queries, keys and values are one stacked linear layer; Whisper's keys have no bias.
        for projection, part in zip("qkv", tensors.pop(name).chunk(3), strict=True):
            if projection != "k" or name.endswith("weight"):
                tensors[name.replace("qkv_proj", f"{projection}_proj")] = part
    return tensors
