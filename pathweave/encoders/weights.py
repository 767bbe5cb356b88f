"""Reading the weights of an encoder."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from pathweave.errors import FetchError
from pathweave.storage.atomic import read_json, sha256_file

_FILE = "model.safetensors"
_DIGITS = 16


def load_weights(module: nn.Module, directory: Path) -> str:
    """Load ``directory/model.safetensors`` into ``module``, freeze it, and return a short hash.

    The hash is read from ``READY.json`` where the fetch has written one, so that a start does not
    hash the weights again.

    Raises:
        FetchError: If ``READY.json`` is damaged.
    """
    module.load_state_dict(_without_counters(load_file(directory / _FILE), module))
    module.eval().requires_grad_(False)
    ready = directory / "READY.json"
    if ready.exists():
        rule, remedy = f"{directory} must hold fetched weights", "delete it and fetch them again"
        files: Any = read_json(ready, rule, remedy, FetchError).get("files")
        try:
            return files[_FILE]["sha256"][:_DIGITS]
        except (KeyError, TypeError) as error:
            raise FetchError(
                f"{rule}, got {ready.name} with files {files!r:.60}; {remedy}"
            ) from error
    return sha256_file(directory / _FILE)[:_DIGITS]


def _without_counters(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Add the step counters of batch normalisation, which serve training alone."""
    counters = {
        name: value
        for name, value in module.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    return counters | state
