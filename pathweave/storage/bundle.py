"""Bundles: directories of tensors with a JSON description that lists the hash of every file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pathweave.errors import PathError, PathWeaveError
from pathweave.storage.atomic import (
    new_directory,
    read_json,
    recover_directory,
    sha256_file,
    write_json,
)
from pathweave.storage.tensors import write_tensors

SHOWN = 12


@dataclass(frozen=True)
class Bundle:
    """A kind of directory, its files and what is said of one that is damaged.

    Args:
        noun: What the directory holds, such as ``a path``.
        description: Name of its JSON file.
        tensors: Names of the files of tensors that each has.
        needed: Keys that the description must have.
        format: Number of the format; None is a kind without one.
        sized: Whether the description has the size of each file beside its hash.
        remedy: What to do about a damaged one.
        error: Class of the errors.

    Example:
        >>> import tempfile, torch
        >>> notes = Bundle("notes", "notes.json", ("notes.safetensors",))
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     place = Path(parent) / "a"
        ...     notes.write(place, {"notes.safetensors": {"x": torch.ones(1)}}, {"by": "me"})
        ...     notes.read(place)["by"], notes.load(place, "notes.safetensors")
        ('me', {'x': tensor([1.])})
    """

    noun: str
    description: str
    tensors: tuple[str, ...] = ()
    needed: frozenset[str] = frozenset()
    format: int | None = 1
    sized: bool = False
    remedy: str = "copy the whole directory again"
    error: type[PathWeaveError] = PathError

    def write(
        self,
        directory: Path,
        tensors: Mapping[str, Mapping[str, Tensor]],
        about: Mapping[str, Any],
    ) -> None:
        """Write a directory; an existing one is replaced when the new one is complete.

        Args:
            directory: What to write.
            tensors: Tensors by name, by file.
            about: The description, as JSON values.

        Raises:
            DiskError: If the directory cannot be written.
        """
        with new_directory(directory) as temporary:
            for file, named in tensors.items():
                write_tensors(temporary / file, named)
            self.describe(temporary, about)

    def describe(self, directory: Path, about: Mapping[str, Any]) -> None:
        """Write the description of the files that are in a directory."""
        files: dict[str, object] = {}
        for file in sorted(directory.iterdir()):
            if file.is_file():
                hash_ = sha256_file(file)
                size = file.stat().st_size
                files[file.name] = {"sha256": hash_, "num_bytes": size} if self.sized else hash_
        made = {} if self.format is None else {"format": self.format}
        write_json(directory / self.description, {**made, **about, "files": files})

    def read(self, directory: Path, quick: bool = False) -> dict[str, Any]:
        """Return the description of a directory whose files are as it says.

        Args:
            directory: The directory.
            quick: Look at sizes, where the description has them, and hash nothing. Nothing is
                changed on disk either, as what a kill has left is put back otherwise.

        Raises:
            PathWeaveError: Of the class ``error``, if the description is missing or lacks a key,
                is of another format, or a file is missing or differs.
        """
        if not quick:
            recover_directory(directory)
        about = read_json(
            directory / self.description, self._rule(directory), self.remedy, self.error
        )
        try:
            made = self.format if self.format is None else about["format"]
            if made != self.format:
                rule = f"{directory} must have format {self.format}"
                raise self.error(f"{rule}, got {made}; install a newer version")
            if missing := self.needed - about.keys():
                raise KeyError(*sorted(missing))
            # Some kinds had no hashes at first.
            for name, entry in about.get("files", {}).items():
                expected = entry["sha256"] if self.sized else str(entry)
                size = entry["num_bytes"] if self.sized else None
                if (found := _found(directory / name, expected, size, quick)) != expected:
                    raise self.error(
                        f"{directory / name} must have sha256 {expected[:SHOWN]}..., got "
                        f"{found[:SHOWN]}; the file is damaged: {self.remedy}"
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise self.broken(directory, error) from error
        return about

    def load(self, directory: Path, file: str) -> dict[str, Tensor]:
        """Return the tensors of one file; none where the file is optional and is not there.

        Raises:
            PathWeaveError: Of the class ``error``, if the file is missing or no safetensors.
        """
        if file not in self.tensors and not (directory / file).is_file():
            return {}
        try:
            return load_file(directory / file)
        except (OSError, SafetensorError) as error:
            raise self.broken(directory, error) from error

    def broken(self, directory: Path, reason: object) -> PathWeaveError:
        """Return the error for a directory that cannot be read."""
        said = reason if isinstance(reason, (OSError, str)) else repr(reason)
        return self.error(f"{self._rule(directory)}, got {said}; {self.remedy}")

    def _rule(self, directory: Path) -> str:
        files = ", ".join([self.description, *self.tensors])
        return f"{directory} must hold {self.noun} ({files})"


def _found(file: Path, expected: str, size: int | None, quick: bool) -> str:
    """Return the hash of a file, or what it is instead of one with the expected hash."""
    if quick and size is None:
        return expected
    if not file.is_file():
        return "no file"
    if quick:
        return expected if size == file.stat().st_size else "another size"
    return sha256_file(file)
