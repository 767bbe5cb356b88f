"""The state of a running stage on disk: resuming gives what never stopping would have given.

There is no random state to save: the order of samples and the noise of gates are functions of the
seed and the step.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathweave.errors import RunError
from pathweave.storage.atomic import recover_directory
from pathweave.storage.bundle import Bundle

TRAINED, MOMENTS = "trained.safetensors", "optimizer.safetensors"
CHECKPOINT = Bundle(
    "a whole checkpoint",
    "state.json",
    (TRAINED, MOMENTS),
    frozenset({"stage"}),
    format=None,
    remedy="remove the directory to train this stage from its start (finished stages are kept)",
    error=RunError,
)


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
    CHECKPOINT.write(directory, {TRAINED: modules.state_dict(), MOMENTS: moments}, state)


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
    state = CHECKPOINT.read(directory)
    if state["stage"] != stage:
        return None
    moments = CHECKPOINT.load(directory, MOMENTS)
    try:
        modules.load_state_dict(CHECKPOINT.load(directory, TRAINED))
    except RuntimeError as error:
        raise CHECKPOINT.broken(directory, " ".join(str(error).split())) from error
    parameters = modules.state_dict(keep_vars=True)
    for key, value in moments.items():
        name, _, moment = key.partition("|")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = value.to(parameter.device)
    return {name: value for name, value in state.items() if name != "files"}
