import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pathweave.errors import BusyError, DiskError
from pathweave.storage.atomic import (
    cache_home,
    new_directory,
    new_file,
    recover_directory,
    sha256_bytes,
    sha256_file,
    sole_writer,
    write_atomic,
    write_json,
)
from tests.full_disk import full_disk

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_cache_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    monkeypatch.delenv("PATHWEAVE_HOME", raising=False)
    assert cache_home() == Path("/there/pathweave")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == Path.home() / ".cache" / "pathweave"
    monkeypatch.setenv("PATHWEAVE_HOME", "/here")
    assert cache_home() == Path("/here")
    monkeypatch.setenv("PATHWEAVE_HOME", "~/here")
    assert cache_home() == Path.home() / "here"
    monkeypatch.delenv("PATHWEAVE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert cache_home() == Path.home() / "cache" / "pathweave"


@pytest.mark.parametrize("home", ["", "~/x", "~nobody-of-this-name/x"])
def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch, home):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setenv("PATHWEAVE_HOME", home)
    with pytest.raises(DiskError, match=r"home directory that is known, .*set PATHWEAVE_HOME"):
        cache_home()
    monkeypatch.setenv("PATHWEAVE_HOME", "/here")
    assert cache_home() == Path("/here")


def test_hashes(tmp_path):
    (tmp_path / "a").touch()
    assert sha256_bytes(b"") == sha256_file(tmp_path / "a") == EMPTY_SHA256


def test_write_atomic(tmp_path):
    path = tmp_path / "new" / "a.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.bin"]


def test_files_get_the_usual_permissions(tmp_path):
    write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes[0] == modes[1]


def test_directories_and_what_others_wrote_in_them_get_the_usual_permissions(tmp_path):
    with new_directory(tmp_path / "d") as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "private").touch(mode=0o600)
    (tmp_path / "e").mkdir()
    (tmp_path / "f").touch()
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("d", "e", "d/part/private", "f")
    ]
    assert modes[0] == modes[1]
    assert modes[2] == modes[3]


def test_write_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, "\u00e9"]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": [\n    1,\n    "\u00e9"\n  ]\n}\n'


def test_failing_block_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(TypeError, match="bytes-like"), new_file(tmp_path / "a") as temporary:
        temporary.write_bytes("not bytes")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_missing_source_is_not_a_disk_error(tmp_path):
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "a") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())


def test_a_place_where_nothing_can_be_written(tmp_path):
    for path in (Path("/proc/a.jsonl"), Path("/proc/no/a.jsonl"), tmp_path / ("a" * 300)):
        with pytest.raises(DiskError, match=r"cannot be written: .*; free some space or"):
            write_atomic(path, b"")
    assert names(tmp_path) == []


def test_full_disk_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    with full_disk(), pytest.raises(DiskError, match="a cannot be written: File too large; free"):
        write_atomic(tmp_path / "a", bytes(2000))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def replace(directory: Path, *contents: bytes) -> None:
    with new_directory(directory) as temporary:
        for number, content in enumerate(contents):
            (temporary / str(number)).write_bytes(content)


def test_full_disk_keeps_the_old_directory(tmp_path):
    replace(tmp_path / "d", b"old")
    with full_disk(), pytest.raises(DiskError, match="d cannot be written: File too large; free"):
        replace(tmp_path / "d", b"new", bytes(2000))
    assert (tmp_path / "d" / "0").read_bytes() == b"old"
    assert names(tmp_path / "d") == ["0"]
    assert names(tmp_path) == ["d"]


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"cannot be written: .*; free some space or choose"):
        write_atomic(tmp_path / "file" / "a", b"")
    with (
        pytest.raises(DiskError, match="cannot be written"),
        new_directory(tmp_path / "file" / "d"),
    ):
        pass
    with pytest.raises(DiskError, match="cannot be written"), sole_writer(tmp_path / "file"):
        pass


def test_new_directory_replaces_the_whole(tmp_path):
    for content in ("a", "b"):
        with new_directory(tmp_path / "d") as temporary:
            assert names(temporary) == []
            (temporary / content).touch()
    assert names(tmp_path / "d") == ["b"]
    assert names(tmp_path) == ["d"]


def test_failing_block_leaves_the_old_directory(tmp_path):
    replace(tmp_path / "d", b"old")
    with pytest.raises(TypeError, match="bytes-like"):
        replace(tmp_path / "d", b"new", "not bytes")
    assert (tmp_path / "d" / "0").read_bytes() == b"old"
    assert names(tmp_path) == ["d"]


def test_recovery_after_a_kill_between_the_renames(tmp_path):
    with new_directory(tmp_path / "d") as temporary:
        (temporary / "a").touch()
    (tmp_path / "d").rename(tmp_path / ".d.old")
    assert recover_directory(tmp_path / "d")
    assert names(tmp_path / "d") == ["a"]
    assert names(tmp_path) == ["d"]


def test_recovery_where_nothing_is_wrong(tmp_path):
    assert not recover_directory(tmp_path / "d")
    with new_directory(tmp_path / "d") as temporary:
        (temporary / "a").touch()
    assert recover_directory(tmp_path / "d")
    assert names(tmp_path / "d") == ["a"]


def test_a_leftover_of_a_kill_is_replaced(tmp_path):
    (tmp_path / ".d.old").mkdir()
    for content in ("a", "b"):
        with new_directory(tmp_path / "d") as temporary:
            (temporary / content).touch()
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["b"]


_HOLD = """
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen:
    script = (
        "import sys; from pathlib import Path; from pathweave.storage.atomic import sole_writer"
        + _HOLD
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        **dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True),
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused(tmp_path):
    process = hold(tmp_path)
    message = rf"must have one writer, but process {process.pid} is writing to it; wait for"
    with pytest.raises(BusyError, match=message), sole_writer(tmp_path):
        pass
    process.kill()
    process.communicate()
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock.pid").read_text(encoding="utf-8") == str(os.getpid())
    assert names(tmp_path) == [".lock"]
    with sole_writer(tmp_path):
        pass


@pytest.mark.parametrize("use", [new_directory, sole_writer])
def test_a_directory_whose_path_is_not_utf_8_is_refused_before_anything_is_written(tmp_path, use):
    with (
        pytest.raises(DiskError, match=r"must have a path in UTF-8, got '.*caf.udce9'; choose"),
        use(tmp_path / os.fsdecode(b"caf\xe9")),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    with use(tmp_path / "caf\u00e9"):
        pass


def test_a_second_writer_of_the_same_process_is_refused(tmp_path):
    with (
        sole_writer(tmp_path),
        pytest.raises(BusyError, match=rf"but process {os.getpid()} is writing"),
        sole_writer(tmp_path),
    ):
        pass
    with sole_writer(tmp_path):
        pass


def test_a_holder_that_is_not_known_is_a_question_mark(tmp_path):
    process = hold(tmp_path)
    (tmp_path / ".lock.pid").unlink()
    with pytest.raises(BusyError, match=r"but process \? is writing"), sole_writer(tmp_path):
        pass
    process.kill()
    process.communicate()
