"""What a run says: JSON lines in a file, one event a line, and live progress in the terminal."""

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pathweave.extras import import_extra
from pathweave.files import disk_errors


@runtime_checkable
class Writer(Protocol):
    """What a TensorBoard ``SummaryWriter`` offers of what is needed."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Record one number."""


class RunLog:
    """Append events to ``log.jsonl``; with a writer, numbers go to TensorBoard too.

    Args:
        path: The file; None writes nothing (all processes but the first).
        writer: TensorBoard writer, if wanted.
    """

    def __init__(self, path: Path | None, writer: Writer | None = None) -> None:
        self._path = path
        self._writer = writer
        if path is not None and path.exists():
            _drop_unfinished_line(path)

    def event(self, name: str, **values: Any) -> None:  # noqa: ANN401
        """Append one event with the time in seconds since 1970."""
        if self._path is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": name, **values})
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(line + "\n")
        if self._writer is not None and name == "step":
            for key in ("loss", "lr", "samples_per_second", "grad_norm"):
                self._writer.add_scalar(f"{values['stage']}/{key}", values[key], values["step"])


def _drop_unfinished_line(path: Path) -> None:
    """Remove the part of a line that a full disk has left at the end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def tensorboard_writer(directory: Path) -> Writer:
    """Return a TensorBoard writer.

    Raises:
        PathWeaveError: If the extra ``tensorboard`` is not installed.
    """
    import_extra("tensorboard", "tensorboard")
    return import_extra("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(directory))


class Display:
    """Progress bars with rate and time left; silent when told so.

    Args:
        quiet: Show nothing (all processes but the first, and ``--json``).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=quiet,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._progress.print(message)

    def bar(self, description: str, total: int, done: int = 0) -> "Bar":
        """Add a bar."""
        return Bar(
            self._progress,
            self._progress.add_task(description, total=total, completed=done, note=""),
        )


class Bar:
    """One bar of a display; it disappears when closed."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._began = time.perf_counter()
        self._count = 0

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that ``count`` more are done; without a note the rate is shown."""
        self._count += count
        rate = self._count / max(time.perf_counter() - self._began, 1e-9)
        self._progress.update(self._task, advance=count, note=note or f"{rate:.1f}/s")

    def close(self) -> None:
        """Remove the bar."""
        self._progress.remove_task(self._task)
