import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.data.manifest import Manifest, manifest_sha256
from pathweave.data.tar_shards import TarRows
from pathweave.errors import ManifestError, MediaError
from tests import whole_runs as runs

ROW = {
    "messages": [
        {"role": "user", "content": [{"type": "see", "path": "png"}]},
        {"role": "assistant", "content": "a thing"},
    ],
    "licence": "CC0-1.0",
}


@pytest.fixture(autouse=True)
def _home(home):
    """Keep lists of members out of the user's directory."""


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            data = data if isinstance(data, bytes) else str(data).encode()
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


def media(manifest):
    return [manifest.read_media(part) for s in manifest for part in s.prompt if not part.is_text]


def test_samples_in_our_own_form_name_their_members(tmp_path):
    named = json.loads(json.dumps(ROW))
    named["messages"][0]["content"][0]["path"] = "b/1.png"
    named["messages"][0]["content"][0]["companion"] = "colours.jpg"
    members = [
        *(("a/0.json", json.dumps({**ROW, "id": "mine"})), ("a/0.png", b"zero")),
        *(("b/1.png", b"one"), ("b/1.colours.jpg", b"1"), ("b/1.json", json.dumps(named))),
    ]
    manifest = Manifest(write_tar(tmp_path / "s.tar", members))
    assert [sample.id for sample in manifest] == ["s/a/0", "s/b/1"]
    assert (manifest[0].answer, manifest[0].licence) == ("a thing", "CC0-1.0")
    assert manifest.read_media(manifest[0].prompt[0]) == b"zero"
    assert manifest[1].prompt[0].companion is not None
    assert manifest.check() == []


def test_endings_say_what_a_member_is(tmp_path):
    members = [
        *(("0.see.png", b"0"), ("0.hear.wav", b"00"), ("0.txt", "a cat\n")),
        *(("1.see.PNG", b"1"), ("1.question.txt", "Which?"), ("1.cls", "1")),
        ("README", "not a sample"),
    ]
    manifest = Manifest(write_tar(tmp_path / "s.tar", members))
    assert [[part.type for part in s.prompt] for s in manifest] == [
        ["see", "hear"],
        ["see", "text"],
    ]
    assert [s.answer for s in manifest] == ["a cat", "1"]
    assert manifest[1].prompt[1].text == "Which?"
    assert media(manifest) == [b"0", b"00", b"1"]


def test_a_file_says_what_endings_mean(tmp_path):
    for shard in range(2):
        members = [
            (f"{i}.{ending}", data)
            for i in range(3)
            for ending, data in (
                ("jpg", f"{shard}{i}"),
                ("json", json.dumps({"caption": f"thing {i}", "licence": "MIT", "url": "x"})),
                ("cls", i % 2),
                ("seg.png", b"not read"),
            )
        ]
        write_tar(tmp_path / "in" / f"{shard:03}.tar", members)
    form = {"shards": "in/{000..001}.tar", "media": {"jpg": "see"}, "question": "What?"}
    (tmp_path / "a.yaml").write_text(json.dumps({**form, "answer": "json.caption"}), "utf-8")
    (tmp_path / "b.yaml").write_text(json.dumps({**form, "classes": ["odd", "even"]}), "utf-8")
    captions, classes = Manifest(tmp_path / "a.yaml"), Manifest(tmp_path / "b.yaml")
    assert [s.id for s in captions] == [f"{k:03}/{i}" for k in range(2) for i in range(3)]
    assert [s.answer for s in captions] == ["thing 0", "thing 1", "thing 2"] * 2
    assert [s.answer for s in classes] == ["odd", "even", "odd"] * 2
    assert captions[5].licence == "MIT"
    assert [part.text for part in captions[0].prompt if part.is_text] == ["What?"]
    assert media(captions) == [f"{k}{i}".encode() for k in range(2) for i in range(3)]
    assert manifest_sha256(tmp_path / "a.yaml") != manifest_sha256(tmp_path / "b.yaml")
    assert [s.id for s in pickle.loads(pickle.dumps(captions))] == [s.id for s in captions]


@given(
    sizes=st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=5), min_size=1, max_size=4)
)
def test_every_member_is_read_as_it_was_written_whatever_the_sizes(tmp_path_factory, sizes):
    directory = tmp_path_factory.mktemp("shards")
    noise = np.random.default_rng(sum(map(sum, sizes)))
    written = []
    for shard, row in enumerate(sizes):
        data = [noise.bytes(size) for size in row]
        written += data
        write_tar(directory / f"{shard}.tar", [(f"{i}.see.bin", d) for i, d in enumerate(data)])
    for pattern in (f"{{0..{len(sizes) - 1}}}.tar", "*.tar"):
        manifest = Manifest(directory / pattern)
        assert len(manifest) == len(written)
        order = noise.permutation(len(written))
        found = {i: manifest.read_media(manifest[int(i)].prompt[0]) for i in order}
        assert [found[i] for i in range(len(written))] == written


def test_members_are_looked_for_once_unless_the_shard_changes(tmp_path, monkeypatch):
    shard = write_tar(tmp_path / "s.tar", [("0.see.bin", b"0"), ("0.txt", "x")])
    before = manifest_sha256(shard)
    opened = []
    whole = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or whole(*a, **k))
    assert len(Manifest(shard)) == 1
    assert manifest_sha256(shard) == before
    assert not opened
    monkeypatch.undo()
    write_tar(shard, [("0.see.bin", b"1"), ("1.see.bin", b"11")])
    os.utime(shard, ns=(1, 1))
    assert media(Manifest(shard)) == [b"1", b"11"]
    assert manifest_sha256(shard) != before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.jpg", b"")], r"sample 0: a medium must say its modality, got the member \.jpg; name"),
        ([("0.json", "[1]")], r"sample 0: a member json must be one JSON object, got '\[1\]'"),
        ([("0.json", json.dumps(ROW))], r"path must be a member of the sample, one of \['json'\]"),
        ([("0.see.png", b"x"), ("0.txt", b"\xff")], r"0\.txt: text must be UTF-8, got"),
        ([("0.txt", "said of nothing")], r"sample 0: "),
    ],
)
def test_a_broken_sample_is_told(tmp_path, members, message):
    sound = [("9.see.png", b"x"), ("9.txt", "y")]
    shard = write_tar(tmp_path / "s.tar", [*members, *sound])
    with pytest.raises(ManifestError, match=message):
        Manifest(shard)[0]
    manifest = Manifest(shard, on_error="collect")
    assert (len(manifest), len(manifest.problems)) == (1, 1)


def test_classes_that_are_none_are_told(tmp_path):
    write_tar(tmp_path / "s.tar", [("0.png", b"x"), ("0.cls", "2"), ("1.png", b"x")])
    form = {"shards": "s.tar", "media": {"png": "see"}, "classes": ["a", "b"], "answer": "cls"}
    (tmp_path / "s.yaml").write_text(json.dumps(form), encoding="utf-8")
    manifest = Manifest(tmp_path / "s.yaml")
    with pytest.raises(ManifestError, match="cls must be one of 2 classes, got '2'"):
        manifest[0]
    with pytest.raises(ManifestError, match="the answer must be in cls, got None"):
        manifest[1]


def test_files_that_are_no_shards_are_told(tmp_path):
    write_tar(tmp_path / "0.tar", [("0.see.png", b"x")])
    with pytest.raises(ManifestError, match=r"must name tar files that exist, got no 1\.tar"):
        Manifest(tmp_path / "{0..1}.tar")
    with pytest.raises(ManifestError, match="must name tar files that exist"):
        Manifest(tmp_path / "no*.tar")
    (tmp_path / "rubbish.tar").write_bytes(b"rubbish" * 100)
    with pytest.raises(ManifestError, match="must be a whole tar file, not compressed, got"):
        Manifest(tmp_path / "rubbish.tar")
    write_tar(tmp_path / "empty.tar", [("README", "")])
    with pytest.raises(ManifestError, match="must have at least one sample, got none"):
        Manifest(tmp_path / "empty.tar")
    (tmp_path / "a.yaml").write_text("shards: 0.tar\nmedai: {}", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"did you mean 'media'\?"):
        Manifest(tmp_path / "a.yaml")


def test_a_shard_that_was_cut_off_after_it_was_listed_is_told(tmp_path):
    shard = write_tar(tmp_path / "s.tar", [("0.see.bin", b"0" * 5000)])
    manifest = Manifest(shard)
    os.truncate(shard, 2000)
    with pytest.raises(MediaError, match="must be a whole tar file, got 1488 of 5000 bytes"):
        media(manifest)
    with pytest.raises(ManifestError, match="must be a whole tar file"):
        TarRows(shard)
    part = manifest[0].prompt[0].model_copy(update={"path": "s.tar#0.see.bin"})
    with pytest.raises(MediaError, match="must name a member as NAME@OFFSET"):
        manifest.read_media(part)


@pytest.mark.slow
def test_a_run_on_shards_is_the_same_whether_it_was_stopped_or_not(tmp_path):
    recipe = runs.write_recipe(tmp_path / "data", "sight", "tilt")
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    for name in ("sight", "tilt"):
        listed = list(Manifest(recipe.parent / f"{name}-train.jsonl"))
        manifest = Manifest(recipe.parent / f"{name}-train.jsonl")
        for shard in range(2):
            members = []
            for i, sample in list(enumerate(listed))[shard::2]:
                data = manifest.read_media(sample.prompt[0])
                members += [(f"{i:03}.{name}.npy", data), (f"{i:03}.txt", sample.answer)]
            write_tar(recipe.parent / name / f"{shard}.tar", members)
        tree["modalities"][name]["train"]["qa"] = {
            "manifest": f"{name}/{{0..1}}.tar",
            "prompt": "How is it?",
        }
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert runs.command("evolve", recipe, "--out", whole, "--json") == 0
    run = runs.Background(tmp_path / "log", "evolve", recipe, "--out", stopped)
    run.wait_until(lambda: (stopped / "checkpoint").exists())
    run.signal(9)
    run.exit_code()
    assert not (stopped / "paths" / "tilt").exists()
    assert runs.command("evolve", recipe, "--out", stopped, "--json") == 0
    assert runs.hashes(whole) == runs.hashes(stopped)
