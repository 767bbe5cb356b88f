"""Log of a run: JSON lines, one event a line; numbers for TensorBoard."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pathweave.extras import import_extra
from pathweave.storage.atomic import disk_errors

Writer = Callable[[str, float, int], object]


class RunLog:
    """Append events to ``log.jsonl``; with a writer, numbers go to TensorBoard too.

    Args:
        path: The file; None writes nothing (all processes but the first).
        writer: Takes tag, value and step of a number for TensorBoard, if wanted.
    """

    def __init__(self, path: Path | None, writer: Writer | None = None) -> None:
        self._path = path
        self._writer = writer
        if path is not None and path.exists():
            # A full disk may have left a part of a line at the end.
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def event(self, name: str, **values: Any) -> None:  # noqa: ANN401
        """Append one event with the time in seconds since 1970."""
        if self._path is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": name, **values})
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if self._writer is not None and name == "step":
            for key in ("loss", "lr", "samples_per_second", "grad_norm"):
                self._writer(f"{values['stage']}/{key}", values[key], values["step"])


def tensorboard_writer(directory: Path) -> Writer:
    """Return what writes numbers for TensorBoard.

    Raises:
        PathWeaveError: If the extra ``tensorboard`` is not installed.
    """
    import_extra("tensorboard", "tensorboard")
    writer = import_extra("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(directory))
    return writer.add_scalar
