"""EfficientNet-Lite0: a plain PyTorch state dict becomes safetensors."""

from pathlib import Path

import torch

from pathweave.bases.convert.tensors import write_model


def convert_efficientnet(source: Path, out: Path) -> None:
    """Convert ``source/model.pth`` to ``out/model.safetensors``; the classifier is kept.

    The classifier is not used by the encoder; it serves to check the weights on a known picture.
    """
    state = torch.load(source / "model.pth", map_location="cpu", weights_only=True)
    kept = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    write_model(out / "model.safetensors", kept)
