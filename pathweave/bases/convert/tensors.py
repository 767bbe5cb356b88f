"""Writing the tensors of a converted model."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def write_model(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` as safetensors that transformers loads; equal tensors give equal bytes.

    It wants the format named in the header. The file is written from bytes, so that a full disk is
    an ``OSError`` as for every other file.
    """
    contiguous = {name: tensors[name].contiguous() for name in sorted(tensors)}
    path.write_bytes(save(contiguous, metadata={"format": "pt"}))
