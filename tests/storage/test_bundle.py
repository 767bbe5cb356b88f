import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathweave.errors import DiskError, FetchError, PathError
from pathweave.storage.atomic import sha256_file
from pathweave.storage.bundle import Bundle
from tests.full_disk import full_disk

NOTES = Bundle("notes", "notes.json", ("a.safetensors",), frozenset({"by"}))
SIZED = Bundle("notes", "notes.json", remedy="ask again", error=FetchError, format=None, sized=True)
STRANGE = [
    "",
    "{",
    "[]",
    "3",
    "null",
    '{"format": 1}',
    '{"format": 1, "by": 0, "files": [1]}',
    "[" * 10**5,
]


@pytest.fixture
def place(tmp_path):
    NOTES.write(tmp_path / "n", {"a.safetensors": {"x": torch.ones(2)}}, {"by": "me"})
    return tmp_path / "n"


def test_what_is_written_is_read_again(place):
    hashes = {"a.safetensors": sha256_file(place / "a.safetensors")}
    assert NOTES.read(place) == {"format": 1, "by": "me", "files": hashes}
    assert json.loads((place / "notes.json").read_text("utf-8")) == NOTES.read(place)
    assert NOTES.load(place, "a.safetensors")["x"].tolist() == [1, 1]


def test_an_optional_file_that_is_not_there_holds_nothing(place):
    assert NOTES.load(place, "b.safetensors") == {}
    (place / "b.safetensors").write_bytes(b"short")
    with pytest.raises(
        PathError, match=r"n must hold notes \(notes.json, a.safetensors\), got Saf"
    ):
        NOTES.load(place, "b.safetensors")
    (place / "a.safetensors").unlink()
    with pytest.raises(PathError, match=r"n must hold notes .*, got .*; copy the whole directory"):
        NOTES.load(place, "a.safetensors")


@pytest.mark.parametrize("content", STRANGE)
def test_a_description_of_any_content_is_refused(place, content):
    (place / "notes.json").write_text(content, "utf-8")
    with pytest.raises(PathError, match=r"n must hold notes \(notes.json, .*; copy the whole dire"):
        NOTES.read(place)


@given(
    value=st.recursive(
        st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_list_of_files_is_read_or_refused(tmp_path_factory, value):
    place = tmp_path_factory.mktemp("n")
    (place / "notes.json").write_text(json.dumps({"format": 1, "by": 0, "files": value}), "utf-8")
    for bundle in (NOTES, SIZED):
        if value == {}:
            assert bundle.read(place)["files"] == {}
            continue
        with pytest.raises((PathError, FetchError), match="must h"):
            bundle.read(place)


def test_a_missing_key_is_named(place):
    (place / "notes.json").write_text('{"format": 1, "files": {}}', "utf-8")
    with pytest.raises(PathError, match=r"got KeyError\('by'\)"):
        NOTES.read(place)


def test_a_newer_format_is_refused_whatever_else_it_lacks(place):
    (place / "notes.json").write_text('{"format": 2}', "utf-8")
    with pytest.raises(PathError, match="n must have format 1, got 2; install a newer version"):
        NOTES.read(place)


def test_a_changed_byte_and_a_missing_file_are_found(place):
    file = place / "a.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(
        PathError, match=r"a.safetensors must have sha256 \w{12}..., got \w{12}; the f"
    ):
        NOTES.read(place)
    assert NOTES.read(place, quick=True)["by"] == "me"
    file.unlink()
    with pytest.raises(PathError, match=r"got no file; the file is damaged: copy the whole direc"):
        NOTES.read(place)


def test_a_quick_look_compares_sizes_where_they_are_kept(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    SIZED.describe(tmp_path, {"by": "me"})
    hash_ = sha256_file(tmp_path / "a.bin")
    assert SIZED.read(tmp_path)["files"] == {"a.bin": {"sha256": hash_, "num_bytes": 3}}
    (tmp_path / "a.bin").write_bytes(b"abd")
    assert SIZED.read(tmp_path, quick=True)["by"] == "me"
    with pytest.raises(FetchError, match=r"a\.bin must have sha256 .*: ask again"):
        SIZED.read(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"ab")
    with pytest.raises(FetchError, match="got another size; the file is damaged: ask again"):
        SIZED.read(tmp_path, quick=True)


def test_what_a_kill_left_is_put_back(place):
    place.rename(place.with_name(".n.old"))
    with pytest.raises(PathError, match="must hold notes"):
        NOTES.read(place, quick=True)
    assert NOTES.read(place)["by"] == "me"


def test_a_full_disk_keeps_what_was_there(place):
    with full_disk(), pytest.raises(DiskError, match="cannot be written: File too large"):
        NOTES.write(place, {"a.safetensors": {"x": torch.ones(2000)}}, {"by": "you"})
    assert NOTES.read(place)["by"] == "me"
