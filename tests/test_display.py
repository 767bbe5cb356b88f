from pathweave.display import Display


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
