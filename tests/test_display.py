import io

import pytest
from rich.console import Console

from pathweave.display import Display, WholeTable


def test_a_display_says_lines_and_shows_bars(capsys):
    with Display() as display:
        display.say("after sound: 50.0")
        bar = display.bar("train sound", total=2)
        bar.advance(1)
        bar.advance(1, note="loss 2.5")
        bar.close()
    captured = capsys.readouterr()
    assert "after sound: 50.0" in captured.err
    assert captured.out == ""


def test_a_quiet_display_says_nothing(capsys):
    with Display(quiet=True) as display:
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
