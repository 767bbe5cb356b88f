"""Sessions of a run as its log tells them: what they have cost, what the newest is doing."""

from pathlib import Path
from typing import Any

from pathweave.train.log import events

_TAIL = 4096


def sessions(log: Path) -> dict[str, Any]:
    """Return what the sessions of a run have cost together.

    Returns:
        ``seconds`` and ``peak_memory_bytes``, wall-clock time and largest resident memory of its
        own sessions; ``shared_seconds``, the time of the first stage it was given.
    """
    own, shared, peak = 0.0, 0.0, 0
    for event in events(log.read_bytes()):
        if event["event"] == "session":
            own += event.get("seconds", 0.0)
            peak = max(peak, event.get("peak_memory_bytes", 0))
        elif event["event"] == "shared":
            shared += event.get("seconds", 0.0)
    spent = {"seconds": round(own, 1), "shared_seconds": round(shared, 1)}
    return {**spent, "peak_memory_bytes": peak}


def current(log: Path, recipe_steps: dict[str, int]) -> str:
    """Return in a few words what a run is doing, from the end of its log.

    Args:
        log: The log.
        recipe_steps: Optimiser steps of each stage.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            found = list(events(file.read()))
    except OSError:
        return "starting"
    for event in reversed(found):
        if event["event"] == "step":
            steps = recipe_steps.get(event["stage"], 0)
            return f"train {event['stage']} {event['step']}/{steps}, loss {event['loss']:.2f}"
        if event["event"] == "score":
            return f"score after {event['after']}: {event['modality']}/{event['dataset']}"
        if event["event"] in ("stage", "saved"):
            return f"{event['event']} {event['stage']}"
    return "starting"
