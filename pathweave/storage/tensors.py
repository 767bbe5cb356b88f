"""Named tensors on disk and their content hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pathweave.storage.atomic import write_atomic


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


HASHED_ONLY_IF_SET = {"hashed_only_if_set": True}
"""Metadata of a field that was added after hashes of its class had been written to disk."""


def hashed_settings(settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the fields of a dataclass that identify it, by name.

    A field with the metadata ``HASHED_ONLY_IF_SET`` is left out at its default value, so that what
    was hashed before there was such a field still has the same hash.
    """
    return {
        field.name: value
        for field in fields(settings)
        if (value := getattr(settings, field.name)) != field.default
        or "hashed_only_if_set" not in field.metadata
    }
