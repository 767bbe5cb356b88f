"""Live progress in the terminal: bars with rate and time left."""

import time
from types import TracebackType

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
            transient=True,
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
        # Progress.stop() would add an empty line where the output is no terminal.
        self._progress.live.stop()

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

    def move_to(self, done: int, note: str) -> None:
        """Say how many are done in all."""
        self._progress.update(self._task, completed=done, note=note)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.remove_task(self._task)
