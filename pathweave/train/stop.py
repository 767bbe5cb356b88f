"""Stopping on request: Ctrl-C and SIGTERM are noted, and acted on between two steps."""

import os
import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """A run was stopped on request and has been saved."""


class StopRequest:
    """Within this block the first SIGINT or SIGTERM only sets ``requested``; the second kills."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopRequest":
        both = (signal.SIGINT, signal.SIGTERM)
        self._before = [(number, signal.signal(number, self._note)) for number in both]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def stop_with_parent() -> None:
    """Save and stop, as with Ctrl-C, when standard input ends.

    A pipe ends with the process that holds its other end, however that process ends.
    """

    def watch() -> None:
        # Not through sys.stdin, whose lock a thread must not hold when the process ends.
        while os.read(0, 4096):
            pass
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
