import io
import re

import pytest
from rich.console import Console

from pathweave.display import Display, WholeTable


def test_lines_and_progress_go_to_standard_error_alone(capsys):
    with Display() as display:
        display.say("after sound: 50.0")
        bar = display.bar("train sound", total=2)
        bar.advance(1)
        bar.close()
    captured = capsys.readouterr()
    assert captured.err == "after sound: 50.0\n"
    assert captured.out == ""


def test_without_a_terminal_a_line_is_printed_now_and_then(capsys):
    with Display(every=0.0) as display:
        bar = display.bar("train sound", total=840, done=420)
        bar.advance(210, note="loss 2.500  12.0 samples/s")
        bar.advance(210)
        bar.close()
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train sound  630/840  loss 2\.500  12\.0 samples/s  0:00 left", first)
    assert re.fullmatch(r"train sound  840/840  [\d.]+/s  0:00 left", second)


def test_time_left_counts_what_this_session_has_done(capsys, monkeypatch):
    clock = iter([100.0, 110.0])  # begun, and after the first ten
    monkeypatch.setattr("pathweave.display.time.monotonic", lambda: next(clock))
    with Display(every=5.0) as display:
        display.bar("score [sound]", total=1010, done=900).advance(10)
    assert capsys.readouterr().err == "score [sound]  910/1,010  1.0/s  1:40 left\n"


def test_lines_keep_their_distance(capsys):
    with Display(every=3600.0) as display:
        bar = display.bar("train sound", total=2)
        bar.advance(1)
        bar.advance(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_terminal_shows_bars_and_no_lines(quiet, monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=120, quiet=quiet)
    monkeypatch.setattr("pathweave.display.Console", lambda **_: terminal)
    with Display(quiet=quiet, every=0.0) as display:
        bar = display.bar("train sound", total=2)
        bar.advance(1, note="loss 2.5")
        display._progress.refresh()
        bar.close()
    assert ("train sound" in shown.getvalue()) != quiet
    assert " left\n" not in shown.getvalue()


def test_a_quiet_display_says_nothing(capsys):
    with Display(quiet=True, every=0.0) as display:
        display.say("after sound: 50.0")
        display.bar("train sound", total=2).advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("width", [20, 80, 100])
def test_a_table_cuts_no_word(width):
    rows = [["point_cloud caption", "1,234,567", "sound 0.33  tilt 0.67"], ["a", "", "b c d " * 30]]
    table = WholeTable("test set", "trained parameters", "gate usage of path_number_3")
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=width)
    console.print(table, crop=False)
    shown = console.file.getvalue()
    headings = "test set trained parameters gate usage of path_number_3"
    assert {*headings.split(), *" ".join(rows[0] + rows[1]).split()} <= {*shown.split()}
    if width > 60:
        assert width - 4 < max(map(len, shown.splitlines())) <= width
