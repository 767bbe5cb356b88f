"""Shows how much of a file has been read."""

from pathweave.datasets.records import Advance
from pathweave.display import Bar


def show_bytes(bar: Bar) -> Advance:
    """Return what to call with numbers of bytes; the bar counts KiB."""
    read = 0

    def advance(count: int) -> None:
        nonlocal read
        before, read = read >> 10, read + count
        bar.advance((read >> 10) - before)

    return advance
