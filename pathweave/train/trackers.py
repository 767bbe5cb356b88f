"""Trackers: the numbers of a run in trackio, wandb or TensorBoard, through Accelerate."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from pathweave.errors import RecipeError, RunError
from pathweave.extras import import_extra
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import sha256_bytes
from pathweave.train.log import RunLog
from pathweave.validation import unknown

PROJECT = "pathweave"
TRACKERS = ("tensorboard", "trackio", "wandb")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not known or not installed.

    Raises:
        RecipeError: If there is no tracker of a name.
        PathWeaveError: If the package of a tracker is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise RecipeError(unknown("--track", name, TRACKERS))
        import_extra(name, name)


def tracked(names: Sequence[str], out: Path) -> dict[str, Any]:
    """Return the arguments with which an ``Accelerator`` has trackers.

    Args:
        names: The trackers.
        out: Directory of the run; TensorBoard's files go to ``tensorboard/`` in it.
    """
    where = ProjectConfiguration(logging_dir=str(out / "tensorboard"))
    return {"log_with": list(names), "project_config": where} if names else {}


def start_trackers(accelerator: Accelerator, run: RunDirectory, log: RunLog) -> None:
    """Begin to track a run, or go on with it.

    Args:
        accelerator: What was made with the arguments of ``tracked``.
        run: The run; it is tracked under the name of its directory.
        log: Its log, which tells whether it was tracked before.

    Raises:
        RunError: If a tracker does not start, such as wandb without an account.
    """
    before = _first_tracked(run.log)
    log.event("tracked", trackers=[str(name) for name in accelerator.log_with])
    # Another run may have had the directory before.
    first = str(run.root).encode() + _first_tracked(run.log)
    named = {"name": str(run.root), "resume": "allow" if before else "never"}
    wandb = {**named, "id": sha256_bytes(first)[:16], "dir": str(run.root), "resume": "allow"}
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            accelerator.init_trackers(PROJECT, init_kwargs={"trackio": named, "wandb": wandb})
    except Exception as error:
        accelerator.trackers.clear()  # one that has not begun cannot end
        raise RunError(
            f"the trackers {', '.join(map(str, accelerator.log_with))} must start, got "
            f"{' '.join(str(error).split())[:160]}; log in, set WANDB_MODE=offline, or leave out "
            "--track"
        ) from error


def _first_tracked(log: Path) -> bytes:
    """Return the line that tells since when a run is tracked, empty if it is not."""
    lines = log.read_bytes().splitlines() if log.exists() else []
    return next((line for line in lines if b'"event": "tracked"' in line), b"")


def stop_trackers(accelerator: Accelerator) -> None:
    """End the trackers and the group of processes."""
    with redirect_stdout(sys.stderr):
        if any(tracker.name == "trackio" for tracker in accelerator.trackers):
            import_extra("trackio", "trackio").finish()  # or it does so, and says so, at exit
        accelerator.end_training()
