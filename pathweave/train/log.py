"""Log of a run: JSON lines, one event a line; numbers for trackers."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pathweave.storage.atomic import disk_errors

Writer = Callable[[dict[str, float], int], object]


class RunLog:
    """Append events to ``log.jsonl``; with a writer, numbers go to trackers too.

    Args:
        path: The file; None writes nothing (all processes but the first).
        writer: Takes numbers by name, and the step of the run that they belong to: steps are
            counted over all stages, in the order in which they began.
    """

    def __init__(self, path: Path | None, writer: Writer | None = None) -> None:
        self._path = path
        self._writer = writer
        self._steps: dict[str, int] = {}  # of each stage, as far as it has come
        if path is not None and path.exists():
            # A full disk may have left a part of a line at the end.
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
            if writer is not None:
                for event in events(path.read_bytes()):
                    self._count(event)

    def event(self, name: str, **values: Any) -> None:  # noqa: ANN401
        """Append one event with the time in seconds since 1970."""
        if self._path is None:
            return
        event = {"time": round(time.time(), 3), "event": name, **values}
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        self._count(event)
        if self._writer is not None and (numbers := _numbers(name, values)):
            self._writer(numbers, self._place(**values))

    def _count(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            stage, step = event["stage"], event["step"]
            self._steps[stage] = max(step, self._steps.get(stage, 0))

    def _place(self, stage: str | None = None, step: int = 0, **_: object) -> int:
        """Return the step of the run that a step of a stage is; without one, the last."""
        stages = list(self._steps)
        earlier = stages[: stages.index(stage)] if stage in stages else stages
        return sum(self._steps[name] for name in earlier) + step


def events(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a log, or of a part of one; its first and last line may have been cut."""
    for line in data.split(b"\n"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def _numbers(name: str, values: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an event that are worth a curve."""
    if name == "score":
        return {f"scores/{values['modality']}/{values['dataset']}": values["score"]}
    if name not in ("step", "medium_use"):
        return {}
    told = {key: value for key, value in values.items() if key not in ("stage", "step")}
    folder = values["stage"] if name == "step" else f"{values['stage']}/medium_use"
    return {f"{folder}/{key}": value for key, value in told.items()}
