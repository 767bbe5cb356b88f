"""Progress of long work: bars in a terminal, a line now and then where there is none."""

import time
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

UNLIMITED = 10_000  # columns of a terminal that any table fits

SECONDS_BETWEEN_LINES = 20.0


class Display:
    """Progress with rate and time left; silent when told so.

    In a terminal every task has a bar. Where output goes to a file or a pipe, a task that takes
    longer prints a line from time to time.

    Args:
        quiet: Show nothing (all processes but the first, and ``--json``).
        every: Seconds between two lines of a task, where there is no terminal.
    """

    def __init__(self, quiet: bool = False, every: float = SECONDS_BETWEEN_LINES) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.every = every
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Older versions of Progress.stop() print an empty line where there is no terminal.
        self._progress.live.stop()

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._progress.print(message)

    def bar(self, description: str, total: int, done: int = 0) -> "Bar":
        """Add a bar.

        Args:
            description: What is done, in a few words.
            total: How many there are to do.
            done: How many were done before; they do not count for the rate.
        """
        task = self._progress.add_task(description, total=total, completed=done, note="")
        return Bar(self, task)


class Bar:
    """The progress of one task; a bar disappears when closed."""

    def __init__(self, display: Display, task: TaskID) -> None:
        self._display = display
        self._progress = display._progress
        self._task = task
        self._began = self._told = time.monotonic()
        self._count = 0

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that ``count`` more are done; without a note the rate is shown."""
        now = time.monotonic()
        self._count += count
        rate = self._count / max(now - self._began, 1e-9)
        note = note or f"{rate:.1f}/s"
        self._progress.update(self._task, advance=count, note=note)
        if not self._display.console.is_terminal and now - self._told >= self._display.every:
            self._told = now
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            left = round((task.remaining or 0) / rate) if rate else 0
            self._display.console.print(
                f"{task.description}  {task.completed:,.0f}/{task.total:,.0f}  {note}  "
                f"{left // 60}:{left % 60:02} left",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def move_to(self, done: int, note: str) -> None:
        """Say how many are done in all."""
        self._progress.update(self._task, completed=done, note=note)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.remove_task(self._task)


class WholeTable(Table):
    """A table that never cuts a word: cells wrap between words, where the terminal is narrow.

    Where even that does not fit, the lines are longer than the terminal; print it with
    ``crop=False`` to have them whole.
    """

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType | Segment]:
        wide = options.update(width=UNLIMITED)
        narrowest, widest = [], []
        for column in self.columns:
            column.width = None
            sizes = [Measurement.get(console, wide, c) for c in (column.header, *column.cells)]
            narrowest.append(max(size.minimum for size in sizes))
            widest.append(max(size.maximum for size in sizes))
        frame = self.__rich_measure__(console, wide).maximum - sum(widest)
        spare = max(0, options.max_width - frame - sum(narrowest))
        wanted = max(1, sum(widest) - sum(narrowest))
        for column, low, high in zip(self.columns, narrowest, widest, strict=True):
            column.width = min(high, low + (high - low) * spare // wanted)
        needed = frame + sum(max(0, column.width or 0) for column in self.columns)
        room = options.update(width=max(options.max_width, needed))
        yield from super().__rich_console__(console, room)
