"""Tensors of a foreign file, without running anything that is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pathweave.errors import PathError
from pathweave.storage.torch_files import ForeignFile

QUIRKS = "released_quirks"
"""Entry of the metadata of the files we write: whether they are to be read with the quirks."""
CHECKPOINT = ForeignFile("a whole checkpoint (.pth, .safetensors)", "download it again", PathError)


@dataclass(frozen=True)
class TensorFile:
    """What a checkpoint holds.

    Attributes:
        file: The file.
        tensors: Its tensors; they stay on disk until they are used.
        beside: Entries beside the model, such as the state of the optimiser.
        quirks: Whether the file says that it was trained with the defects of the released code;
            None if it does not say.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    beside: tuple[str, ...] = ()
    quirks: bool | None = None


def read_tensors(file: Path) -> TensorFile:
    """Read a checkpoint: safetensors, or a pickle of tensors and plain values alone.

    Args:
        file: ``.safetensors``, or a file of ``torch.save``, with or without an outer entry
            ``model``.

    Raises:
        PathError: If there is no such file, it is damaged or no checkpoint, or its pickle holds
            anything but tensors and plain values.
    """
    if not file.is_file():
        raise PathError(f"{file} must be a checkpoint, got no such file; correct the path")
    if file.suffix == ".safetensors":
        opened = CHECKPOINT.open_safetensors(file)
        said = (opened.metadata() or {}).get(QUIRKS)
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return TensorFile(file, tensors, quirks=None if said is None else said == "true")
    content = CHECKPOINT.load(file)
    if not isinstance(content, dict):
        raise PathError(
            f"{file} must hold named tensors, got a {type(content).__name__}; give a checkpoint"
        )
    inner = content.get("model")
    beside = tuple(str(key) for key in content if key != "model")
    if not isinstance(inner, dict):
        inner, beside = content, ()
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise PathError(
                f"{file} must hold named tensors, got a {type(value).__name__} under {name!r}; "
                "give the checkpoint of a model"
            )
    return TensorFile(file, inner, beside)
