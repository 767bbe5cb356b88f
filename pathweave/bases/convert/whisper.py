"""Whisper tiny.en: the encoder alone, under the names transformers gives its parameters."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pathweave.bases.convert.ctranslate2 import read_ctranslate2
from pathweave.bases.convert.tensors import write_model

_PREFIX = "model.encoder."
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
    def get(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"encoder/{name}"].astype(np.float32))

    tensors = {"embed_positions.weight": get("position_encodings/encodings")}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            tensors[f"{conv}.{part}"] = get(f"{conv}/{part}")
    norms = {"layer_norm": "layer_norm"}
    linears = {}
    for index in range(TINY_EN["num_layers"]):
        new, old = f"layers.{index}", f"layer_{index}"
        norms[f"{new}.self_attn_layer_norm"] = f"{old}/self_attention/layer_norm"
        norms[f"{new}.final_layer_norm"] = f"{old}/ffn/layer_norm"
        linears[f"{new}.self_attn.out_proj"] = f"{old}/self_attention/linear_1"
        linears[f"{new}.fc1"] = f"{old}/ffn/linear_0"
        linears[f"{new}.fc2"] = f"{old}/ffn/linear_1"
        # Queries, keys and values are one stacked linear layer; Whisper's keys have no bias.
        stacked = f"{old}/self_attention/linear_0"
        weights, biases = get(f"{stacked}/weight").chunk(3), get(f"{stacked}/bias").chunk(3)
        for projection, weight, bias in zip("qkv", weights, biases, strict=True):
            tensors[f"{new}.self_attn.{projection}_proj.weight"] = weight
            if projection != "k":
                tensors[f"{new}.self_attn.{projection}_proj.bias"] = bias
    for target, name in norms.items():
        tensors[f"{target}.weight"] = get(f"{name}/gamma")
        tensors[f"{target}.bias"] = get(f"{name}/beta")
    for target, name in linears.items():
        tensors[f"{target}.weight"] = get(f"{name}/weight")
        tensors[f"{target}.bias"] = get(f"{name}/bias")
    return tensors
