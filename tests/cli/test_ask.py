import io
import json
import shutil
import sys

import pytest
import typer

from pathweave.cli.ask import parse_words
from pathweave.errors import RunError
from tests.published import picture, write_published
from tests.whole_runs import command


@pytest.fixture
def media(recipe_file):
    """A file of each sensor."""
    return {name: recipe_file.parent / f"{name}-test-0.npy" for name in ("sight", "sound", "tilt")}


def test_words_become_parts_in_order():
    run, parts = parse_words(["run", "--a-b", "x.npy", "--c=y.npy", "How", "is it?"])
    assert run == "run"
    assert parts == [
        {"type": "a_b", "path": "x.npy"},
        {"type": "c", "path": "y.npy"},
        {"type": "text", "text": "How is it?"},
    ]
    assert parse_words(["run", "--c", "y.npy"])[1] == [{"type": "c", "path": "y.npy"}]


def test_after_two_dashes_all_is_text():
    parts = parse_words(["run", "--c", "y.npy", "--", "--text", "-5", "--", "x"])[1]
    assert parts[1:] == [{"type": "text", "text": "--text -5 -- x"}]


def test_text_that_begins_with_a_dash(finished_run, media, capsys):
    words = ("ask", finished_run, "--tilt", media["tilt"], "--max-tokens", 2, "--json")
    assert command(*words, "--", "--max-tokens", "-is it?") == 0
    asked = json.loads(capsys.readouterr().out)
    assert asked["prompt"][1] == {"type": "text", "text": "--max-tokens -is it?"}


@pytest.mark.parametrize("words", [["run", "caf\udce9"], ["run", "--c", "caf\udce9.npy", "What?"]])
def test_words_in_another_encoding_are_one_line(words, capsys):
    assert command("ask", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: the words of ask must be UTF-8, got 'caf\\udce9")
    assert (captured.err.count("\n"), captured.out) == (1, "")


@pytest.mark.parametrize("option", ["--max-tokens", "--beams"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_token_and_no_beam_are_refused(option, value, capsys):
    assert command("ask", "run", "What?", option, value) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"'{option}'" in error
    assert "Invalid value" in error
    assert "Traceback" not in error


def terminal_of(encoding, monkeypatch):
    """What is printed from here on goes to a terminal of this encoding."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "utf-8"])
def test_json_is_valid_on_any_terminal(finished_run, monkeypatch, encoding):
    terminal = terminal_of(encoding, monkeypatch)
    question = "caf\u00e9 \u4e2d \U0001f600?"
    assert command("ask", finished_run, question, "--max-tokens", 2, "--json") == 0
    shown = terminal.buffer.getvalue().decode(terminal.encoding)
    assert json.loads(shown)["prompt"][0]["text"] == question
    assert (question in shown) == (terminal.encoding == "utf-8")


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "utf-8"])
def test_what_a_terminal_has_no_letter_for_is_escaped(monkeypatch, encoding):
    terminal = terminal_of(encoding, monkeypatch)
    assert command("ask", "--help") == 0
    typer.echo("\u201ccaf\u00e9\u201d")
    shown = terminal.buffer.getvalue().decode(terminal.encoding).splitlines()[-1]
    is_unicode = terminal.encoding == "utf-8"
    assert shown == ("\u201ccaf\u00e9\u201d" if is_unicode else "\\u201ccaf\u00e9\\u201d")


@pytest.mark.parametrize("words", [["run"], [], ["--c", "y.npy"]])
def test_too_few_words_are_refused(words):
    with pytest.raises(RunError, match="must be given DIR and a medium or a text, got too little"):
        parse_words(words)


@pytest.mark.parametrize("words", [["run", "--c"], ["run", "--c="], ["run", "--c", "--", "What?"]])
def test_a_medium_needs_a_file(words):
    with pytest.raises(RunError, match="--c must be followed by a file, got nothing"):
        parse_words(words)


def test_a_companion_belongs_to_the_medium_before_it():
    _, parts = parse_words(
        ["run", "--map", "a.png", "--companion", "a.jpg", "--map=b.png", "What?"]
    )
    assert parts[0] == {"type": "map", "path": "a.png", "companion": "a.jpg"}
    assert parts[1] == {"type": "map", "path": "b.png"}


@pytest.mark.parametrize("words", [[], ["--map", "a.png", "--companion", "b.jpg"]])
def test_a_companion_needs_a_medium(words):
    message = r"--companion must follow the medium .*, got 'c\.jpg' after none; write --MODALITY"
    with pytest.raises(RunError, match=message):
        parse_words(["run", *words, "--companion", "c.jpg"])


def test_several_media_of_several_modalities(finished_run, media, capsys):
    words = ["ask", finished_run, "--tilt", media["tilt"], "--sight", media["sight"]]
    words += [f"--tilt={media['tilt']}", "Which is it?", "--max-tokens", 3, "--json"]
    assert command(*words) == 0
    asked = json.loads(capsys.readouterr().out)
    assert [part["type"] for part in asked["prompt"]] == ["tilt", "sight", "tilt", "text"]
    assert isinstance(asked["answer"], str)


def test_text_alone_and_beams(finished_run, media, capsys):
    assert command("ask", finished_run, "How is it?", "--max-tokens", 2) == 0
    assert command("ask", finished_run, "--sound", media["sound"], "--beams", 2) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_a_missing_file_is_one_line(finished_run, capsys):
    assert command("ask", finished_run, "--sound", "nowhere.npy", "How is it?") == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "error: nowhere.npy must be a file, got No such file or directory; correct the path\n"
    )
    assert captured.out == ""


def test_a_file_that_cannot_be_read_is_one_line(finished_run, tmp_path, capsys):
    (tmp_path / "text.npy").write_text("not an array", encoding="utf-8")
    assert command("ask", finished_run, "--sound", tmp_path / "text.npy", "How is it?") == 2
    error = capsys.readouterr().err
    assert "text.npy must be a whole .npy or safetensors file" in error
    assert error.count("\n") == 1


def test_an_unknown_modality_is_told_the_nearest(finished_run, media, capsys):
    assert command("ask", finished_run, "--sounds", media["sound"], "How is it?") == 2
    error = capsys.readouterr().err
    assert "must be one of ['sight', 'sound', 'tilt'], got 'sounds'; did you mean 'sound'?" in error


def test_a_modality_that_is_not_learnt_yet(finished_run, media, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "paths" / "tilt")
    assert command("ask", tmp_path / "run", "--tilt", media["tilt"], "How is it?") == 2
    assert "must be one of ['sight', 'sound'], got 'tilt'" in capsys.readouterr().err


@pytest.fixture
def base(tmp_path):
    """A pretrained base and a picture."""
    picture().save(tmp_path / "picture.png")
    return write_published(tmp_path / "blip", "instructblip-llama").directory


def test_a_base_by_itself_is_asked(base, capsys):
    file = base.parent / "picture.png"
    words = ("--image", file, "What is it?", "--max-tokens", 4, "--json")
    assert command("ask", "--base", base, *words) == 0
    asked = json.loads(capsys.readouterr().out)
    parts = [{"type": "image", "path": str(file)}, {"type": "text", "text": "What is it?"}]
    assert asked["prompt"] == parts
    assert isinstance(asked["answer"], str)
    assert command("ask", "--base", base, "Say hello.", "--max-tokens", 2) == 0


def test_a_base_reads_its_own_media_alone(base, capsys):
    assert command("ask", "--base", base, "--sound", "x.wav", "What?") == 2
    error = capsys.readouterr().err
    assert error == "error: a medium must be one of ['image'], got 'sound'\n"


def test_what_is_no_base_is_one_line(tmp_path, capsys):
    assert command("ask", "--base", "minu", "What?") == 2
    assert "base must be one of ['mini'], got 'minu'; did you mean" in capsys.readouterr().err
    assert command("ask", "--base", tmp_path, "What?") == 2
    assert (
        "must hold a base (base.json), or an InstructBLIP, a BLIP-2 or a vision LLM (config.json)"
        in (capsys.readouterr().err)
    )
