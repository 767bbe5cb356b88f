"""Progress of a fetch, shown on standard error."""

import contextlib
from collections.abc import Callable, Iterator

Report = Callable[[str, str, int, int], None]
"""Called with the name of the weights, the stage, the bytes done and the bytes in all."""


@contextlib.contextmanager
def terminal_report() -> Iterator[Report]:
    """Yield a report that draws a bar for each set of weights; off a terminal it prints lines."""
    # Importing rich takes longer than finding weights that are already there.
    from pathweave.display import Bar, Display

    bars: dict[str, Bar] = {}
    last: dict[str, str] = {}

    def report(name: str, stage: str, done: int, total: int) -> None:
        megabytes = round(total / 1e6)
        if display.console.is_terminal:
            if name not in bars:
                bars[name] = display.bar(name, megabytes)
            bars[name].move_to(round(done / 1e6), f"MB {stage}")
        elif last.get(name) != stage:
            display.say(f"{name}: {stage} ({megabytes} MB)")
            last[name] = stage

    with Display() as display:
        yield report
