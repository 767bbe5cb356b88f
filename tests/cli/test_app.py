import json
import subprocess
import sys

import pytest

from tests.runs import command

COMMANDS = ("evolve", "inspect", "verify", "evaluate", "fetch", "ask")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_by_an_example(name, capsys):
    assert command(name, "--help") == 0
    assert f"Example: pathweave {name}" in " ".join(capsys.readouterr().out.split())


def test_help_lists_every_command_and_the_exit_codes(capsys):
    assert command("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert "Exit codes" in shown


@pytest.mark.parametrize("words", [["inspct"], ["verify"], ["verify", "run", "--jsn"], []])
def test_wrong_usage_is_exit_code_2(words, capsys):
    assert command(*words) == 2
    captured = capsys.readouterr()
    assert "Usage:" in captured.err + captured.out


@pytest.mark.parametrize("name", ["inspect", "verify", "evaluate", "ask"])
def test_a_directory_that_is_no_run_is_exit_code_2(name, tmp_path, capsys):
    words = ["How is it?"] if name == "ask" else []
    assert command(name, tmp_path, *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {tmp_path} must be the directory of a run")
    assert captured.err.count("\n") == 1


def test_the_module_is_the_program(finished_run, tmp_path):
    """Exit code, output and errors as a shell sees them."""
    program = [sys.executable, "-m", "pathweave.cli"]
    done = subprocess.run([*program, "inspect", finished_run, "--no-gates", "--json"], stdout=-1)
    assert done.returncode == 0
    assert json.loads(done.stdout)["run"] == "tiny"
    failed = subprocess.run([*program, "inspect", tmp_path], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
