"""The stored values of the authors' networks, as files in the published formats."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

DIRECTORY = Path(__file__).parents[1] / "golden_encoders"


def arrays(name):
    with np.load(DIRECTORY / f"{name}.npz") as stored:
        return {key: torch.tensor(stored[key]) for key in stored.files}


def parameters(name):
    return {
        key.removeprefix("param/"): value
        for key, value in arrays(name).items()
        if key.startswith("param/")
    }


def real(name):
    return json.loads((DIRECTORY / f"real_{name}.json").read_text(encoding="utf-8"))


def expanded(shapes):
    """Tensors of these shapes that take no memory, by name."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


BEATS_CFG = real("beats_iter3plus")["settings"] | {
    "embed_dim": 16,
    "encoder_embed_dim": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_embed_dim": 40,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "num_buckets": 32,
    "max_distance": 20,
}


def write_beats(file, cfg=None, **tensors):
    torch.save({"cfg": BEATS_CFG | (cfg or {}), "model": parameters("beats") | tensors}, file)
    return file


def write_ulip(file, **tensors):
    """As its authors saved it: from several processors, with their command line."""
    state = parameters("ulip_pointbert") | tensors
    content = {
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "epoch": "last",
        "args": argparse.Namespace(model="ULIP_PointBERT", lr=3e-3),
    }
    torch.save(content, file)
    return file
