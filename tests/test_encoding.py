"""Text is UTF-8 wherever a command runs: files never depend on the locale."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import whole_runs as runs

ROOT = Path(__file__).parents[1]
PLACES = ("pathweave", "scripts", "benchmarks", "tests")
# An ``open`` of these is of other things than text files.
OTHERS = {"Image", "av", "gzip", "os", "soundfile", "tarfile", "wave", "webbrowser", "zipfile"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_the_locale(source):
    """Return the lines on which a text file is opened without an encoding."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and not any(keyword.arg in ("encoding", None) for keyword in node.keywords)
        and _is_text(node)
    ]


def _is_text(call):
    function, count = call.func, len(call.args)
    name = getattr(function, "attr", getattr(function, "id", ""))
    if name in ("read_text", "write_text"):
        return count == (name == "write_text")
    if name != "open" or getattr(getattr(function, "value", None), "id", "") in OTHERS:
        return False
    place = 1 if isinstance(function, ast.Name) else 0
    modes = [k.value for k in call.keywords if k.arg == "mode"] or call.args[place : place + 1]
    mode = getattr(modes[0], "value", None) if modes else "r"
    return isinstance(mode, str) and len(mode) > 0 and set(mode) <= set("rwaxt+")


@pytest.mark.parametrize("place", PLACES)
def test_every_text_file_is_opened_as_utf8(place):
    found = {
        str(file.relative_to(ROOT)): lines
        for file in sorted((ROOT / place).rglob("*.py"))
        if (lines := in_the_locale(file.read_text(encoding="utf-8")))
    }
    assert found == {}, 'give each encoding="utf-8"'


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text()",
        "path.read_text(errors='replace')",
        "path.write_text('a')",
        "path.open()",
        "path.open('a')",
        "path.open(mode='w', newline='')",
        "open(path)",
        "open(path, 'r+')",
    ],
)
def test_an_opening_without_an_encoding_is_seen(line):
    assert in_the_locale(line) == [1]


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text('utf-8')",
        "path.read_text(encoding='utf-8')",
        "path.write_text('a', 'utf-8')",
        "path.open('rb')",
        "open(path, 'wb')",
        "open(path, **how)",
        "Image.open('rt')",
        "archive.open(member)  # no mode",
    ],
)
def test_other_openings_are_let_be(line):
    assert in_the_locale(line) == []


def test_a_run_is_the_same_in_a_locale_without_utf8(tmp_path):
    """A cue with letters beyond ASCII, from the recipe through the run to what is printed."""
    recipe = runs.write_recipe(tmp_path, "sight")
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["sight"]["cue"] = cue = "\u0432\u0438\u0434 \u00e9\u4e2d:"
    recipe.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    home = {"PATHWEAVE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def command(*words):
        process = subprocess.run(
            [sys.executable, "-m", "pathweave.cli", *map(str, words)],
            env=os.environ | home | C_LOCALE,
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr.decode(errors="replace")
        return process.stdout

    command("evolve", recipe, "--out", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert kept["modalities"]["sight"]["cue"] == cue
    # As a user may write it, or another program: with the letters themselves.
    raw = json.dumps(kept, ensure_ascii=False)
    (tmp_path / "run" / "recipe.json").write_text(raw, encoding="utf-8")
    assert command("inspect", tmp_path / "run")
    assert json.loads(command("verify", tmp_path / "run", "--json"))[0]["holds"] is True
