import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pathweave.errors import RunError
from pathweave.model.pathweave import PathWeave
from pathweave.runs.assistant import load
from pathweave.serve import token_shards
from pathweave.serve.token_shards import read_index, write_token_shards
from tests.whole_runs import command

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def manifest(recipe_file, tmp_path):
    """Samples of three modalities, one without an answer, one whose medium is gone, one broken."""
    rows = []
    for name in ("sight", "sound", "tilt"):
        file = recipe_file.parent / f"{name}-test.jsonl"
        rows += map(json.loads, file.read_text(encoding="utf-8").splitlines()[:4])
    for row in rows:
        part = row["messages"][0]["content"][0]
        shutil.copyfile(recipe_file.parent / part["path"], tmp_path / part["path"])
    rows[2]["messages"].pop()
    rows[3]["messages"][0]["content"][0]["path"] = "gone.npy"
    rows[5]["references"] = ["low\u2028", "deep"]
    lines = [*map(json.dumps, rows), '{"id": "broken"}']
    file = tmp_path / "corpus.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def expected(run, manifest):
    """The embeddings that the whole model reads, by id."""
    assistant = load(run)
    assistant.root = manifest.parent
    found = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["id"] != "broken" and row["messages"][0]["content"][0]["path"] != "gone.npy":
            prompt = assistant.prompt(row["messages"][0]["content"])
            [found[row["id"]]] = assistant.model.embed_prompts([prompt])
    return found


def check(run, manifest, out):
    """What is read back is what the whole model reads, once each; and what it is compared with."""
    lines = list(read_index(out))
    wanted = expected(run, manifest)
    assert sorted(line["id"] for line in lines) == sorted(wanted)
    for line in lines:
        rows = load_file(out / line["shard"])[line["key"]]
        assert line["tokens"] == len(rows)
        torch.testing.assert_close(rows, wanted[line["id"]], atol=1e-5, rtol=1e-5)
    return {line["id"]: line["references"] for line in lines}


def test_what_is_written_is_what_the_language_model_reads(finished_run, manifest, tmp_path, capfd):
    out = tmp_path / "out"
    assert command("tokens", finished_run, manifest, "--out", out) == 0
    printed = capfd.readouterr().out
    assert "11 samples in 1 shards, 2 bad" in printed
    assert "gone.npy" in printed
    references = check(finished_run, manifest, out)
    assert references["sight-test-2"] == []
    assert references["sound-test-1"] == ["low\u2028", "deep"]
    assert references["tilt-test-0"] == ["low"]
    assert Path(json.loads((out / "about.json").read_text("utf-8"))["language_model"]).is_dir()


def test_a_stopped_command_goes_on_where_it_was(finished_run, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "SHARD_BYTES", 1)
    out, real, calls = tmp_path / "out", PathWeave.embed_prompts, []

    def stopped(model, prompts):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(model, prompts)

    monkeypatch.setattr(PathWeave, "embed_prompts", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_token_shards(finished_run, manifest, out, quiet=True)
    kept = (out / "00000.safetensors").stat().st_mtime_ns
    again = write_token_shards(finished_run, manifest, out, quiet=True)
    assert (again["samples"], again["shards"], len(again["bad"])) == (11, 2, 2)
    assert calls == [8, 3, 3]
    assert (out / "00000.safetensors").stat().st_mtime_ns == kept
    check(finished_run, manifest, out)


def test_shards_of_another_manifest_and_damaged_ones_are_refused(finished_run, manifest, tmp_path):
    out = tmp_path / "out"
    write_token_shards(finished_run, manifest, out, quiet=True)
    (out / "00000.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"00000.jsonl must hold the index of a shard, got KeyError"):
        write_token_shards(finished_run, manifest, out, quiet=True)
    (out / "00000.safetensors").unlink()
    (out / "00000.jsonl").write_text('{"id": "a", "shard": "00000.safetensors"}\n', "utf-8")
    with pytest.raises(RunError, match=r"got FileNotFoundError\('no 00000.safetensors'\); remove"):
        write_token_shards(finished_run, manifest, out, quiet=True)
    manifest.write_text(manifest.read_text("utf-8").replace("How is", "What is"), encoding="utf-8")
    with pytest.raises(RunError, match=r"must hold shards of this run .* got others \(manifest\)"):
        write_token_shards(finished_run, manifest, out, quiet=True)
