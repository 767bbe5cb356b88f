"""Progress of a fetch, shown on standard error."""

import contextlib
from collections.abc import Callable, Iterator

Report = Callable[[str, str, int, int], None]
"""Called with the name of the weights, the stage, the bytes done and the bytes in all."""


@contextlib.contextmanager
def terminal_report() -> Iterator[Report]:
    """Yield a report that draws a bar for each set of weights; off a terminal it prints lines."""
    # Importing rich takes longer than finding weights that are already there.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True)
    text = TextColumn("{task.description} {task.fields[stage]}")
    bars = Progress(text, BarColumn(), DownloadColumn(), console=console)
    tasks = {}
    last: dict[str, str] = {}

    def report(name: str, stage: str, done: int, total: int) -> None:
        if not console.is_terminal:
            if last.get(name) != stage:
                console.print(f"{name}: {stage} ({total / 1e6:.0f} MB)", highlight=False)
            last[name] = stage
            return
        if name not in tasks:
            tasks[name] = bars.add_task(name, stage=stage, total=total)
        bars.update(tasks[name], stage=stage, completed=done, total=total)

    with bars if console.is_terminal else contextlib.nullcontext():
        yield report
