import subprocess
import sys

import pytest
import torch

import pathweave
from pathweave.model.pathweave import PathWeave
from tests.whole_runs import command

COMMANDS = (
    "evolve",
    "extend",
    "curve",
    "inspect",
    "verify",
    "evaluate",
    "estimate",
    "fetch",
    "ask",
    "import",
    "recipes",
    "export",
    "modality",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_by_an_example(name, capsys):
    assert command(name, "--help") == 0
    assert f"Example: pathweave {name}" in " ".join(capsys.readouterr().out.split())


def test_compare_answers_to_its_older_name_too(capsys):
    assert command("mcl") == 2
    assert "compare must be given GRID and --out DIR" in capsys.readouterr().err


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


def test_the_module_is_the_program(tmp_path):
    """Exit code, output and errors as a shell sees them."""
    program = [sys.executable, "-m", "pathweave.cli", "inspect", tmp_path]
    failed = subprocess.run(program, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr


def test_help_answers_at_once():
    """The command line alone imports no large library."""
    show = "import pathweave.cli, sys; print({'torch', 'transformers'} & {*sys.modules})"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True)
    assert shown.stdout == "set()\n"


def test_the_version_is_that_of_the_package(capsys):
    assert command("--version") == 0
    assert capsys.readouterr().out == f"pathweave {pathweave.__version__}\n"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "got CUDA out of"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "got [enforce"),
        (MemoryError(), "got too much"),
    ],
)
def test_too_little_memory_is_told_and_the_run_goes_on_later(
    error, said, recipe_file, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise error

    words = ("evolve", recipe_file, "--out", tmp_path / "run", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(PathWeave, "forward", full)
        assert command(*words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"error: what is computed at once must fit into memory, {said}" in told
    assert "training.micro_batch" in told
    assert command(*words) == 0


def test_an_error_of_ours_is_not_hidden(finished_run, monkeypatch):
    def broken(*_):
        raise RuntimeError("a mistake")

    monkeypatch.setattr("pathweave.evaluate.verify.verify_base", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        command("verify", finished_run)
