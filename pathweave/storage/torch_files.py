"""Files of weights that others wrote, read without running what is in them."""

import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pathweave.errors import PathWeaveError

_FOREIGN_OBJECT = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True)
class ForeignFile:
    """A kind of file, and what is said of one that cannot be read.

    Args:
        what: What the file must be, such as ``a whole checkpoint``.
        remedy: What to do otherwise.
        error: Class of the error.
        allowed: Classes that it may hold besides tensors and plain values.

    Example:
        >>> import tempfile
        >>> kind = ForeignFile("a checkpoint", "download it again", PathWeaveError)
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     torch.save({"x": torch.ones(1)}, file.name)
        ...     kind.load(Path(file.name))
        {'x': tensor([1.])}
    """

    what: str
    remedy: str
    error: type[PathWeaveError]
    allowed: Sequence[type] = ()

    def load(self, file: Path) -> Any:  # noqa: ANN401
        """Return what the file holds; tensors of a file in the present format stay on disk.

        Raises:
            PathWeaveError: Of the class ``error``, if the file is damaged, or holds anything but
                tensors, plain values and what is allowed.
        """
        try:
            with torch.serialization.safe_globals(list(self.allowed)):
                # Files of before torch 1.6 are no zip archives, and cannot be mapped into memory.
                return torch.load(
                    file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
                )
        # Whatever is wrong with a file, the reader raises errors of every kind.
        except Exception as error:
            if found := _FOREIGN_OBJECT.search(str(error)):
                raise self.error(
                    f"{file} must be {self.what} with tensors and plain values alone, got "
                    f"{found[1]}, which could run code; it is refused: ask its author for the "
                    f"tensors alone, or {self.remedy}"
                ) from error
            is_pickle = isinstance(error, pickle.UnpicklingError)
            raise self.damaged(file, "no pickle of tensors" if is_pickle else error) from error

    def open_safetensors(self, file: Path) -> Any:  # noqa: ANN401
        """Return what ``safe_open`` gives for a file: its tensors stay on disk until asked for.

        Raises:
            PathWeaveError: Of the class ``error``, if the file is damaged.
        """
        try:
            return safe_open(file, framework="pt")
        except (OSError, SafetensorError) as error:
            raise self.damaged(file, error) from error

    def damaged(self, file: Path, reason: Exception | str) -> PathWeaveError:
        """Return the error for a file that cannot be read."""
        said = str(reason).strip().partition("\n")[0].partition(". ")[0] or type(reason).__name__
        size = file.stat().st_size / 1e6 if file.is_file() else 0
        return self.error(
            f"{file} must be {self.what}, got {size:.1f} MB that cannot be read ({said}); it is "
            f"damaged or partly downloaded: {self.remedy}"
        )
