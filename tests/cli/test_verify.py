import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pathweave.storage.atomic import sha256_file
from tests.whole_runs import command


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_every_path_holds(finished_run, capsys):
    assert command("verify", finished_run, "--json") == 0
    verdicts = json.loads(capsys.readouterr().out)
    assert [verdict["path"] for verdict in verdicts] == ["base", "sight", "sound", "tilt"]
    for verdict in verdicts:
        assert verdict["holds"]
        assert verdict["identical"]
        assert verdict["same_machine"]
        assert verdict["max_difference"] == 0


def test_a_proof_has_four_samples(finished_run):
    for name in ("sight", "sound", "tilt"):
        proof = json.loads(
            (finished_run / "paths" / name / "path.json").read_text(encoding="utf-8")
        )["proof"]
        assert len(proof["texts"]) == len(proof["logits"]) == len(proof["answers"]) == 4


def tamper(directory):
    """Change a path's tensors as somebody would who mends the hash, too."""
    file, about = directory / "path.safetensors", directory / "path.json"
    tensors = load_file(file)
    tensors["queries"] *= -1
    save_file(tensors, file)
    description = json.loads(about.read_text(encoding="utf-8"))
    description["files"]["path.safetensors"] = sha256_file(file)
    about.write_text(json.dumps(description), encoding="utf-8")


def test_a_path_that_computes_something_else_is_exit_code_1(copied_run, capsys):
    tamper(copied_run / "paths" / "tilt")
    assert command("verify", copied_run) == 1
    lines = capsys.readouterr().out.splitlines()
    names = ("base", "sight", "sound")
    assert lines[:3] == [f"ok   {name}: bit-identical" for name in names]
    assert lines[3].startswith("FAIL tilt: differs by ")
    assert command("verify", copied_run, "--json") == 1
    assert [v["holds"] for v in json.loads(capsys.readouterr().out)] == [True, True, True, False]


def test_a_changed_predecessor_is_exit_code_2(copied_run, capsys):
    tamper(copied_run / "paths" / "sound")
    assert command("verify", copied_run) == 2
    assert "predecessor 'sound' of path 'tilt' must be" in capsys.readouterr().err


def test_a_missing_connector_is_exit_code_2(copied_run, capsys):
    (copied_run / "base" / "connector.safetensors").unlink()
    assert command("verify", copied_run) == 2
    assert "connector.safetensors must have sha256" in capsys.readouterr().err
