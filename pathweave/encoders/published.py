"""Files of weights as their authors published them: found, read, and loaded key by key."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathweave.errors import FetchError
from pathweave.storage.tensors import tensors_hash
from pathweave.storage.torch_files import ForeignFile


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Args:
        title: What it is, for messages.
        files: Names the file is published under, the preferred one first.
        origin: Where it is published.
        licence: Its licence, as an SPDX identifier.
    """

    title: str
    files: tuple[str, ...]
    origin: str
    licence: str

    @property
    def remedy(self) -> str:
        """Return how to get the file."""
        return f"download {self.files[0]} from {self.origin} and give its path as directory"

    def find(self, place: Path) -> Path:
        """Return the file at ``place``, which is the file itself or a directory that holds it.

        Raises:
            FetchError: If there is none.
        """
        if place.is_file():
            return place
        for name in self.files:
            if (place / name).is_file():
                return place / name
        found = f"a directory without {' or '.join(self.files)}" if place.is_dir() else "nothing"
        raise FetchError(
            f"{place} must be or hold the weights of {self.title}, got {found}; {self.remedy}"
        )

    def read(self, file: Path) -> Mapping[str, Any]:
        """Return what a checkpoint holds, without running code from it.

        Tensors of a file in the present format stay on disk until they are used.

        Raises:
            FetchError: If the file is damaged, is no checkpoint, or holds more than plain values.
        """
        # Some authors saved their command line along with the weights: names and plain values.
        kind = ForeignFile(
            f"the checkpoint of {self.title}", self.remedy, FetchError, (argparse.Namespace,)
        )
        content = kind.load(file)
        if not isinstance(content, Mapping):
            raise self._refused(file, f"a {type(content).__name__}")
        return content

    def tensors(self, state: object, file: Path) -> dict[str, Tensor]:
        """Return a part of what a checkpoint holds as tensors by name.

        Raises:
            FetchError: If it is something else.
        """
        if isinstance(state, Mapping):
            others = sorted(str(k) for k, v in state.items() if not isinstance(v, Tensor))
            if not others:
                return {str(name): tensor for name, tensor in state.items()}
            raise self._refused(file, f"one where {others[0]} is no tensor")
        raise self._refused(file, f"one with {type(state).__name__} in place of tensors")

    def wrong(self, file: Path, rule: str, found: str) -> FetchError:
        """Return the error for a file of another model: it must ``rule``, it has ``found``."""
        return FetchError(f"{file} must {rule}, got {found}; {self.remedy}")

    def _refused(self, file: Path, found: str) -> FetchError:
        return self.wrong(file, f"be the checkpoint of {self.title}", found)


def assign(module: nn.Module, state: Mapping[str, Tensor], file: Path, source: Published) -> None:
    """Make ``state`` the tensors of ``module``, which may be on the meta device, and freeze it.

    Raises:
        FetchError: If a tensor is missing, left over, or of another shape; the first is named.
    """
    wanted = module.state_dict()
    rule = f"hold the weights of {source.title}"
    if missing := wanted.keys() - state.keys():
        raise source.wrong(file, rule, f"no {min(missing)}")
    if left := state.keys() - wanted.keys():
        raise source.wrong(file, f"{rule} alone", f"{min(left)} as well")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise source.wrong(
                file,
                f"hold {name} of the shape {list(tensor.shape)}",
                f"{list(state[name].shape)}: another model",
            )
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def placed(network: nn.Module) -> str:
    """Move a network to where large encoders compute, and return a short hash of its tensors."""
    weights = tensors_hash(network.state_dict())[:16]
    network.to(device())
    return weights


def device() -> torch.device:
    """Return where large networks compute: the graphics processor if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
