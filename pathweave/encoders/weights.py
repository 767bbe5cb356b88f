"""Reading the weights of an encoder."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pathweave.errors import FetchError
from pathweave.storage.atomic import read_json, sha256_file
from pathweave.storage.tensors import load_exactly

_FILE = "model.safetensors"
_DIGITS = 16
REMEDY = "delete the directory and fetch them again"


def load_weights(module: nn.Module, directory: Path) -> str:
    """Load ``directory/model.safetensors`` into ``module``, freeze it, and return a short hash.

    The hash is read from ``READY.json`` where the fetch has written one, so that a start does not
    hash the weights again.

    Raises:
        FetchError: If a file is missing or damaged, or holds the weights of another module.
    """
    rule = f"{directory} must hold the weights of an encoder"
    try:
        state = load_file(directory / _FILE)
    except (OSError, SafetensorError) as error:
        raise FetchError(f"{rule}, got {error}; {REMEDY}") from error
    # The step counters of batch normalisation serve training alone.
    own = module.state_dict().items()
    counters = {name: tensor for name, tensor in own if name.endswith("num_batches_tracked")}
    load_exactly(module, counters | state, rule, REMEDY, FetchError)
    module.eval().requires_grad_(False)
    ready = directory / "READY.json"
    if not ready.exists():
        return sha256_file(directory / _FILE)[:_DIGITS]
    files: Any = read_json(ready, rule, REMEDY, FetchError).get("files")
    try:
        return files[_FILE]["sha256"][:_DIGITS]
    except (KeyError, TypeError) as error:
        raise FetchError(f"{rule}, got {ready.name} with files {files!r:.60}; {REMEDY}") from error
