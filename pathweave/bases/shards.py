"""Tensors of a published checkpoint, in one file or in shards, read where they are asked for.

Nothing is copied: tensors are mapped from the file, so that only pages that are used take memory,
and the system may drop them again.
"""

import json
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pathweave.errors import FetchError
from pathweave.storage.torch_files import ForeignFile

INDEX_SUFFIX = ".index.json"
FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHTS = ForeignFile("a whole file of weights", "download it again", FetchError)
LISTED = 3


class Shards:
    """The tensors in a directory of the Hugging Face layout.

    Args:
        directory: Holds ``model.safetensors`` or ``pytorch_model.bin``, or the shards that
            ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json`` lists.

    Raises:
        FetchError: If there is no such file, or a shard is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = self._find()
        missing = [file for file in self._files if not (directory / file).is_file()]
        if missing:
            raise FetchError(
                f"{directory} must hold all {len(self._files)} files of weights, got no "
                f"{', '.join(missing[:LISTED])}{' ...' if len(missing) > LISTED else ''}; download "
                "what is missing into it"
            )

    def _find(self) -> list[str]:
        for name in FILES:
            index = self.directory / f"{name}{INDEX_SUFFIX}"
            if index.is_file():
                try:
                    return sorted(
                        set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
                    )
                except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                    raise FetchError(
                        f"{index} must list the shards of a checkpoint, got {error!r}; download it "
                        "again"
                    ) from error
            if (self.directory / name).is_file():
                return [name]
        raise FetchError(
            f"{self.directory} must hold {' or '.join(FILES)} or an index of shards, got none; "
            "download the weights into it"
        )

    @cached_property
    def _places(self) -> dict[str, Callable[[], Tensor]]:
        """How to get each tensor, by name."""
        places: dict[str, Callable[[], Tensor]] = {}
        for name in self._files:
            read = _open_safetensors if name.endswith(".safetensors") else _open_pickle
            places |= read(self.directory / name)
        return places

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._places)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return tensors by name, mapped from the file.

        Raises:
            FetchError: If one is not there, or a file is damaged.
        """
        found = {}
        for name in names:
            if name not in self._places:
                raise FetchError(
                    f"{self.directory} must hold the tensor {name}, got none of that name; the "
                    "checkpoint is of another model, or a file of it is an old one: download it "
                    "again"
                )
            found[name] = self._places[name]()
        return found

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with ``prefix``, under the rest of their names."""
        names = [name for name in self._places if name.startswith(prefix)]
        return {name.removeprefix(prefix): t for name, t in self.read(names).items()}


def _open_safetensors(file: Path) -> dict[str, Callable[[], Tensor]]:
    try:
        opened = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise WEIGHTS.damaged(file, error) from error
    return {name: partial(opened.get_tensor, name) for name in opened.keys()}  # noqa: SIM118


def _open_pickle(file: Path) -> dict[str, Callable[[], Tensor]]:
    state = WEIGHTS.load(file)
    if not isinstance(state, dict):
        raise WEIGHTS.damaged(file, f"a {type(state).__name__} in place of tensors by name")
    return {name: partial(state.__getitem__, name) for name in state}
