"""Stopping on request: Ctrl-C and SIGTERM are noted, and acted on between two steps."""

import signal
from types import FrameType, TracebackType


class Interrupted(Exception):
    """A run was stopped on request and has been saved."""


class StopRequest:
    """Within this block the first SIGINT or SIGTERM only sets ``requested``; the second kills."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
