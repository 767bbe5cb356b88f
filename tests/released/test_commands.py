import json
import re

import pytest
import torch

from pathweave.model.base import save_base
from pathweave.recipe.reading import dump_recipe
from pathweave.runs.loading import load_run
from pathweave.runs.path_directory import describe_path
from tests import whole_runs as runs
from tests.released.files import SMALL_HEADS, instructblip_state, write_run
from tests.released.test_import import natural
from tests.released.test_write import NAMES, imported, recipe, released_base  # noqa: F401


@pytest.fixture
def run(capsys):
    """Run a command and return what it says, or its error."""

    def command(*words, code=0):
        assert runs.command(*words) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.out if code == 0 else " ".join(said.err.split())

    return command


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    torch.save(instructblip_state(), root / "image.pth")
    return [root / "image.pth", *write_run(root, change=natural)]


def test_import_and_export(run, files, tmp_path):
    said = run("import", *files, "--out", tmp_path / "in", "--heads", SMALL_HEADS)
    for word in ("image", "point_cloud", "no effect", "future", "parameters"):
        assert word in said
    assert said.splitlines()[-1].endswith("in: image, video, audio, depth, point_cloud")
    said = run("export", tmp_path / "in", "--out", tmp_path / "out")
    assert "pc.safetensors (" in said.replace("\n", "")
    exported = sorted((tmp_path / "out").iterdir())
    assert [f.name for f in exported] == [
        "audio.safetensors", "depth.safetensors", "image.safetensors", "pc.safetensors",
        "video.safetensors",
    ]  # fmt: skip
    again = tmp_path / "again"
    report = json.loads(run("import", *exported, "--out", again, "--heads", SMALL_HEADS, "--json"))
    assert [file["path"] for file in report["files"]] == NAMES
    assert report["base_fingerprint"] == "unbound"
    assert report["files"][2]["keys"]["path"][0].startswith("audio_")
    report = json.loads(run("export", again, "--out", tmp_path / "out2", "--json"))
    assert report["keys"]["video"] > 600
    assert report["notes"] == []


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_of_an_import_is_whole_at_usual_widths(
    run, files, tmp_path, monkeypatch, columns
):
    monkeypatch.setenv("COLUMNS", str(columns))
    given = ["import", *files, "--heads", SMALL_HEADS, "--out"]
    report = json.loads(run(*given, tmp_path / "a", "--json"))
    lines = run(*given, tmp_path / "b").splitlines()
    assert max(map(len, lines[:-1])) <= columns
    table = {row[0]: row[1:] for line in lines if (row := re.split(r"  +", line.strip()))}
    assert table["keys"] == NAMES
    sizes = [sum(report["parameters"][name].values()) for name in NAMES]
    assert table["parameters"] == [f"{size:,}" for size in sizes]
    for role in ("connector", "path", "no effect"):
        assert table[role] == [str(len(f["keys"].get(role, ()))) for f in report["files"]]


@pytest.fixture
def base(imported, tmp_path):  # noqa: F811
    save_base(released_base(imported), tmp_path / "base", whole=True)
    return tmp_path / "base"


def test_import_for_a_base(run, files, base, tmp_path):
    out = tmp_path / "out"
    given = ["--heads", SMALL_HEADS, "--order", "image, video,audio,depth,pc", "--quirks"]
    report = json.loads(run("import", *files, "--out", out, "--base", base, *given, "--json"))
    assert len(report["base_fingerprint"]) == 64
    assert (out / "base/connector.safetensors").is_file()
    assert not (out / "connector").exists()


def test_import_for_a_recipe_makes_a_run(run, files, base, tmp_path):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe(base)), encoding="utf-8")
    out = tmp_path / "run"
    run("import", *files, "--out", out, "--recipe", tmp_path / "recipe.yaml", "--heads", 4)
    model, read = load_run(out)
    assert model.paths.names == list(read.curriculum) == NAMES
    licences = describe_path(out / "paths" / "video")["licences"]
    assert licences == {"tiny": "Apache-2.0", "encoder": "not stated", "checkpoint": "not stated"}


def test_bad_input(run, files, tmp_path):
    out = tmp_path / "out"
    said = run("import", tmp_path / "none.pth", "--out", out, code=2)
    assert said.startswith("error: ")
    assert "must be a checkpoint, got no such file; correct the path" in said
    given = ["import", *files, "--out", out, "--heads", SMALL_HEADS]
    assert "--order must be image,video,audio," in run(*given, "--order", "audio,video", code=2)
    assert "or to be read with --quirks" in run(*given, "--no-quirks", code=2)
    assert "heads divide its width 16" in run(*given[:-2], code=2)
    assert "base must be one of" in run(*given, "--base", "minj", code=2)
    both = run(*given, "--base", "mini", "--recipe", tmp_path / "recipe.yaml", code=2)
    assert "--recipe names the base, got --base as well; leave one of them out" in both
    assert not out.exists()
    assert "Missing argument" in run("import", "--out", out, code=2)
    assert "must be the directory of a run" in run("export", tmp_path, "--out", out, code=2)


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_has_an_example(run, command):
    said = run(command, "--help")
    assert f"Example: pathweave {command}" in " ".join(said.split())
