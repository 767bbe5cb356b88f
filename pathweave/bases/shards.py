"""Tensors of a published checkpoint, in one file or in shards, read where they are asked for.

Nothing is copied: tensors are mapped from the file, so that only pages that are used take memory,
and the system may drop them again.
"""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from pathweave.errors import FetchError
from pathweave.storage.atomic import read_json
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
                rule, remedy = f"{index} must list the shards of a checkpoint", "download it again"
                files = read_json(index, rule, remedy, FetchError).get("weight_map")
                if isinstance(files, dict) and all(isinstance(f, str) for f in files.values()):
                    return sorted(set(files.values()))
                raise FetchError(f"{rule}, got weight_map {files!r:.60}; {remedy}")
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
            file = self.directory / name
            if name.endswith(".safetensors"):
                opened = WEIGHTS.open_safetensors(file)
                places |= {key: partial(opened.get_tensor, key) for key in opened.keys()}  # noqa: SIM118
                continue
            state = WEIGHTS.load(file)
            if not isinstance(state, dict):
                raise WEIGHTS.damaged(file, f"a {type(state).__name__} in place of tensors by name")
            places |= {key: partial(state.__getitem__, key) for key in state}
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
