import json
import shutil

import pytest

from tests.whole_runs import command, hashes

FIELDS = {"predecessors", "parameters", "trained_parameters", "bytes", "gate_usage"}
FIELDS |= {"content_hash", "modality", "licences", "medium_use"}


def test_json_holds_every_path(finished_run, capsys):
    assert command("inspect", finished_run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["curriculum"]) == ("tiny", ["sight", "sound", "tilt"])
    assert {n: path["content_hash"] for n, path in found["paths"].items()} == hashes(finished_run)
    assert all(path.keys() == FIELDS for path in found["paths"].values())
    tilt = found["paths"]["tilt"]
    assert tilt["predecessors"] == ["sound"]
    assert tilt["trained_parameters"] == sum(tilt["parameters"].values())
    assert tilt["gate_usage"].keys() == {"sound", "tilt"}
    assert sum(tilt["gate_usage"].values()) == pytest.approx(1, abs=1e-3)
    assert tilt["modality"]["encoder"] == {"kind": "precomputed", "width": 12}
    assert tilt["licences"] == {"tiny": "Apache-2.0", "encoder": "not stated", "data": ["CC0-1.0"]}
    assert found["results"]["recipe"] == "tiny"


@pytest.mark.parametrize(("columns", "words"), [(80, []), (100, ["--no-gates"])])
def test_the_tables_are_whole(finished_run, capsys, monkeypatch, columns, words):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert command("inspect", finished_run, *words) == 0
    shown = capsys.readouterr().out
    assert "\u2026" not in shown
    assert "3 of 3 stages" in shown
    for word in ("builds", "trained", "gate", "usage", "hash", "sound", "encoder:", "CC0-1.0"):
        assert word in shown
    for name in ("sight", "sound", "tilt"):
        assert name in shown
    for digest in hashes(finished_run).values():
        assert digest[:8] in shown


def test_a_run_that_has_not_learnt_anything(finished_run, tmp_path, capsys):
    shutil.copy(finished_run / "recipe.json", tmp_path)
    assert command("inspect", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["paths"], found["results"]) == ({}, None)


def test_a_damaged_path_is_one_line(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "run")
    file = tmp_path / "run" / "paths" / "sound" / "path.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert command("inspect", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "the file is damaged: copy the whole directory again" in error
    assert error.count("\n") == 1
