"""The state of a running stage on disk: resuming gives what never stopping would have given.

There is no random state to save: the order of samples and the noise of gates are functions of the
seed and the step.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pathweave.errors import RunError
from pathweave.storage.atomic import new_directory, recover_directory, write_json
from pathweave.storage.tensors import write_tensors


def save_checkpoint(
    directory: Path,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write trained tensors, optimiser moments and ``state``, atomically.

    Args:
        directory: What to write.
        modules: What the stage trains.
        optimizer: Its optimiser.
        state: JSON values, such as stage and step.

    Raises:
        DiskError: If the directory cannot be written; the previous checkpoint is kept.
    """
    moments: dict[str, Tensor] = {}
    # Under the names of the saved tensors, which are not always those of the modules.
    for name, parameter in modules.state_dict(keep_vars=True).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = torch.as_tensor(value)
    with new_directory(directory) as temporary:
        write_tensors(temporary / "trained.safetensors", modules.state_dict())
        write_tensors(temporary / "optimizer.safetensors", moments)
        write_json(temporary / "state.json", state)


def load_checkpoint(
    directory: Path, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, stage: str
) -> dict[str, Any] | None:
    """Restore what ``save_checkpoint`` wrote for this stage and return its ``state``.

    Returns:
        None if there is no checkpoint, or one of another stage.

    Raises:
        RunError: If the checkpoint is damaged.
    """
    if not recover_directory(directory):
        return None
    try:
        state = json.loads((directory / "state.json").read_text())
        if state["stage"] != stage:
            return None
        modules.load_state_dict(load_file(directory / "trained.safetensors"))
        moments = load_file(directory / "optimizer.safetensors")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(
            f"{directory} must be a whole checkpoint, got {error}; remove the directory to train "
            "this stage from its start (finished stages are kept)"
        ) from error
    parameters = modules.state_dict(keep_vars=True)
    for key, value in moments.items():
        name, _, moment = key.partition("|")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = value.to(parameter.device)
    return state
