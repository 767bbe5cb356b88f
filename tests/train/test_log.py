import json
import time

import pytest

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


def test_a_writer_is_given_the_numbers_of_steps_alone(tmp_path):
    given = []
    log = RunLog(tmp_path / "log.jsonl", lambda *number: given.append(number))
    log.event("saved", stage="sound")
    log.event("step", **STEP, grad_norm=0.5)
    assert ("sound/loss", 2.5, 1) in given
    assert {tag for tag, _, _ in given} == {
        f"sound/{key}" for key in ("loss", "lr", "samples_per_second", "grad_norm")
    }
