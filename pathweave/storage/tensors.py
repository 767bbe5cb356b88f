"""Named tensors on disk and their content hash."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pathweave.errors import PathError, PathWeaveError
from pathweave.storage.atomic import new_file

ALIGNMENT = 64  # bytes, of tensors that torch allocates
SIZE_BYTES = 8  # of the length of the header, which a file begins with

FILLING = ("torch.nn.init", "transformers.initialization")  # which wraps the former


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically.

    Their header is filled up, so that a tensor that is mapped from the file lies as one that is
    allocated: products of either are equal to the last bit.

    Raises:
        DiskError: If the disk is full or the directory cannot be written.
    """
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    end = SIZE_BYTES + int.from_bytes(data[:SIZE_BYTES], "little")
    start = -(-end // ALIGNMENT) * ALIGNMENT
    with new_file(path) as temporary, temporary.open("wb") as file:
        file.write((start - SIZE_BYTES).to_bytes(SIZE_BYTES, "little"))
        file.write(data[SIZE_BYTES:end].ljust(start - SIZE_BYTES))
        file.write(memoryview(data)[end:])


class NotFilling(TorchFunctionMode):
    """Leaves out initial values, where all values are to follow."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 (as torch has it)
        types: object,
        args: Any = (),  # noqa: ANN401
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function of torch, unless it is one that fills a tensor."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) not in FILLING:
            return func(*args, **kwargs)
        return args[0] if args else kwargs["tensor"]


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix``, under the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def load_exactly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    rule: str,
    remedy: str = "copy the whole directory again",
    error: type[PathWeaveError] = PathError,
    stay: bool = False,
) -> None:
    """Load tensors into a module that has them all and no others.

    Args:
        module: The module.
        tensors: Its tensors by name.
        rule: What must be, such as ``a must hold the tensors of b``: the start of the message.
        remedy: What to do otherwise: its end.
        error: Class of the error.
        stay: Leave them where they are, mapped from their file, if they are of the module's types
            and lie as allocated ones do: so processes share them, and what is trained is copied.

    Raises:
        PathWeaveError: Of the class ``error``, if a tensor is missing, left over or of another
            shape.
    """
    # Windows replaces no file that is mapped.
    stay = stay and sys.platform != "win32" and _lie_alike(module.state_dict(), tensors)
    try:
        module.load_state_dict(dict(tensors), assign=stay)
    except RuntimeError as problem:
        raise error(f"{rule}, got: {' '.join(str(problem).split())}; {remedy}") from problem


def _lie_alike(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    pairs = ((own[name], tensor) for name, tensor in tensors.items() if name in own)
    return all(
        (a.dtype, a.device) == (b.dtype, b.device) and not b.data_ptr() % ALIGNMENT
        for a, b in pairs
    )


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
