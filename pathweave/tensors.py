"""Named tensors on disk and their content hash."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from pathweave.files import write_atomic


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        DiskError: If the disk is full or the directory cannot be written.
    """
    write_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def tensors_hash(tensors: Mapping[str, Tensor], seed: str = "") -> str:
    """Return the SHA-256 over names, types, shapes and values of tensors, in order of name."""
    digest = hashlib.sha256(seed.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
