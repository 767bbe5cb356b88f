"""Streams of ``datasets`` as tar shards; nothing comes from a network."""

import json

import pytest

from pathweave.data.manifest import Manifest
from pathweave.datasets.stream import Streamed, write_stream
from pathweave.errors import ManifestError, RunError
from tests import whole_runs as runs
from tests.datasets.files import medium
from tests.datasets.test_saved_datasets import CLASSES, save_parquet

pytest.importorskip("datasets", reason="the library datasets is not installed")
PNG = medium(".png")


@pytest.fixture(autouse=True)
def _home(home, tmp_path, monkeypatch):
    """Keep lists of members, and what ``datasets`` notes, out of the user's directories."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def source(tmp_path):
    """A directory of two Parquet files of 20 rows each, one of which has no picture."""
    for part in range(2):
        numbers = range(20 * part, 20 * (part + 1))
        rows = [
            {"image": {"bytes": PNG + b"%d" % i, "path": f"{i}.png"}, "label": i % 2}
            for i in numbers
        ]
        if part:
            rows[3]["image"] = None
        save_parquet(tmp_path / "birds" / "data" / f"train-{part:05}-of-00002.parquet", rows)
    return tmp_path / "birds"


def content(directory):
    manifest = Manifest(directory / "*.tar")
    return [(s.id, s.answer, manifest.read_media(s.prompt[0]), s.prompt[1].text) for s in manifest]


def asked(source, **changes):
    fields = {"modality": "see", "question": "Which?", "licence": "CC0-1.0", **changes}
    return Streamed(str(source), "train", **fields)


def test_a_stream_becomes_shards_that_are_a_manifest(source, tmp_path):
    done = write_stream(asked(source), tmp_path / "out", shard_bytes=8 * len(PNG), quiet=True)
    assert (done["samples"], done["unusable"], done["shards"]) == (39, 1, 5)
    assert "must show a medium" in done["reason"]
    rows = [i for i in range(40) if i != 23]
    found = content(tmp_path / "out")
    assert [row[1:] for row in found] == [
        (CLASSES["names"][i % 2], PNG + b"%d" % i, "Which?") for i in rows
    ]
    assert len({row[0] for row in found}) == 39
    manifest = Manifest(done["manifest"])
    assert (manifest.part_types, manifest[0].licence) == ({"see"}, "CC0-1.0")
    assert manifest.check() == []


@pytest.mark.parametrize("stop", [0, 1, 7, 8, 19, 20, 21, 38])
def test_a_stream_that_is_stopped_anywhere_goes_on_exactly_there(
    source, tmp_path, monkeypatch, stop
):
    how = {"shard_bytes": 6 * len(PNG), "quiet": True}
    whole = write_stream(asked(source), tmp_path / "whole", **how)
    from pathweave.datasets import stream

    add, count = stream._Shards.add, iter(range(100))

    def add_or_stop(self, record):
        if next(count) == stop:
            raise KeyboardInterrupt
        add(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(stream._Shards, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            write_stream(asked(source), tmp_path / "out", **how)
    done = write_stream(asked(source), tmp_path / "out", **how)
    assert {**done, "manifest": ""} == {**whole, "manifest": ""}
    for shard in (tmp_path / "whole").glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "out" / shard.name).read_bytes()
    # A third time there is nothing to do: the source is not even looked at.
    assert write_stream(asked(source), tmp_path / "out", **how) == done


def test_shards_of_another_stream_are_not_mixed_with_it(source, tmp_path):
    write_stream(asked(source), tmp_path / "out", quiet=True)
    with pytest.raises(RunError, match="must hold shards of this stream, got those of"):
        write_stream(asked(source, modality="look"), tmp_path / "out", quiet=True)


def test_what_cannot_be_streamed_is_told(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ManifestError, match="must be a data set that can be streamed, with a"):
        write_stream(asked(tmp_path / "nothing"), tmp_path / "out", quiet=True)


def test_the_command(source, tmp_path, capsys):
    words = ("data", "stream", source, "--split", "train", "--out", tmp_path / "out", "--json")
    assert runs.command(*words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["manifest"] == str(tmp_path / "out" / "000000.tar")
    assert Manifest(done["manifest"])[0].prompt[0].type == "image"
