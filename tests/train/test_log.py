import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from pathweave.errors import DiskError
from pathweave.train.log import RunLog
from tests.full_disk import full_disk

STEP = {"stage": "sound", "step": 1, "loss": 2.5, "lr": 0.1, "samples_per_second": 9.0}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_events_are_json_lines_with_their_time(tmp_path):
    log = RunLog(tmp_path / "new" / "log.jsonl")
    log.event("stage", stage="sound", trained=12)
    log.event("step", **STEP, grad_norm=1.0)
    first, second = lines(tmp_path / "new" / "log.jsonl")
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {"event": "stage", "stage": "sound", "trained": 12}
    assert second["time"] >= 0
    assert second.items() >= STEP.items()


def test_a_log_without_a_file_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunLog(None).event("step", **STEP)
    assert not list(tmp_path.iterdir())


def test_a_log_is_appended_to_and_a_line_that_a_full_disk_cut_is_dropped(tmp_path):
    file = tmp_path / "log.jsonl"
    RunLog(file).event("first", note="x" * 900)
    with full_disk(), pytest.raises(DiskError, match=r"log.jsonl cannot be written"):
        RunLog(file).event("second", note="y" * 900)
    assert not file.read_text(encoding="utf-8").endswith("\n")
    RunLog(file).event("third")
    assert [event["event"] for event in lines(file)] == ["first", "third"]


def test_a_writer_is_given_the_numbers_worth_a_curve(tmp_path):
    given = []
    log = RunLog(tmp_path / "log.jsonl", lambda *numbers: given.append(numbers))
    log.event("saved", stage="sound")
    log.event("step", **STEP, grad_norm=0.5)
    log.event("medium_use", stage="sound", step=1, own=2.0, none=3.0)
    log.event("score", after="sound", modality="sound", dataset="qa", score=40.0, metric="vqa")
    keys = ("loss", "lr", "samples_per_second", "grad_norm")
    numbers = {f"sound/{key}": value for key, value in {**STEP, "grad_norm": 0.5}.items()}
    assert given == [
        ({f"sound/{key}": numbers[f"sound/{key}"] for key in keys}, 1),
        ({"sound/medium_use/own": 2.0, "sound/medium_use/none": 3.0}, 1),
        ({"scores/sound/qa": 40.0}, 1),
    ]


@drawn(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_steps_are_counted_over_all_stages_also_after_a_stop(lengths, data):
    """A run that is stopped takes the last steps again; each keeps its place on the axis."""
    steps = [(str(stage), step) for stage, n in enumerate(lengths) for step in range(1, n + 1)]
    stop = data.draw(st.integers(0, len(steps)))
    begun = stop - steps[stop - 1][1] if stop else 0  # the stage it was in
    again = data.draw(st.integers(begun, stop))
    given = []
    with TemporaryDirectory() as directory:
        for part in (range(stop), range(again, len(steps))):
            log = RunLog(Path(directory) / "log.jsonl", lambda *numbers: given.append(numbers))
            for place in part:
                stage, step = steps[place]
                log.event("step", stage=stage, step=step, place=float(place + 1))
    assert given == [
        ({f"{steps[place][0]}/place": place + 1}, place + 1)
        for place in [*range(stop), *range(again, len(steps))]
    ]
