"""Files that are either whole or absent: atomic writes, content hashes, one writer at a time."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pathweave.errors import BusyError, DiskError


def cache_home() -> Path:
    """Return the directory of fetched weights and cached features.

    It is ``$PATHWEAVE_HOME`` where set, else ``$XDG_CACHE_HOME/pathweave``, else
    ``~/.cache/pathweave``. The directory need not exist.
    """
    if home := os.environ.get("PATHWEAVE_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pathweave"


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing ``path`` into a ``DiskError``.

    A file that is missing is something else: it was to be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _disk_error(path, error) from error


def _disk_error(path: Path, error: OSError) -> DiskError:
    return DiskError(
        f"{path} cannot be written: {error.strerror or error}; free some space or choose another "
        "directory, then run the same command again (finished work is kept)"
    )


def check_path(path: Path) -> None:
    """Refuse a path that is not UTF-8, as files of tensors cannot be read from there.

    Raises:
        DiskError: If it is not.
    """
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise DiskError(
            f"a directory to write to must have a path in UTF-8, got {str(path)!a}; choose another"
        ) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield where to write a file that replaces ``path`` when the block ends without an error.

    A reader sees the old content or the new, never a part, also after a kill.

    Raises:
        DiskError: If the disk is full or the directory cannot be written.
    """
    # Opened by name and not by mkstemp, so that the file gets the usual permissions.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:  # Nothing is read yet, so what is missing is where to write.
        raise _disk_error(path, error) from error
    try:
        with disk_errors(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old content or the new, never a part.

    Raises:
        DiskError: If the disk is full or the directory cannot be written.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces ``final`` when the block ends without an error.

    A kill at any moment leaves the old directory, the new one, or (between two renames) the old
    one under the name ``.final.old``, which the next call of ``recover_directory`` puts back.

    Raises:
        DiskError: If the disk is full, the parent cannot be written, or the path is not UTF-8.
    """
    check_path(final)
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        with disk_errors(final):
            yield temporary
            _sync_tree(temporary)
            temporary.chmod(0o755)
            old = _old_name(final)
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(final, old)
            os.replace(temporary, final)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_directory(final: Path) -> bool:
    """Put back what a kill between the two renames of ``new_directory`` left; say if it exists."""
    old = _old_name(final)
    if old.exists() and not final.exists():
        os.replace(old, final)
    return final.exists()


def _old_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for one process; the lock ends with the process, however it ends.

    Raises:
        BusyError: If another process holds it.
        DiskError: If it cannot be written, or its path is not UTF-8.
    """
    check_path(directory)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BusyError(
                f"{directory} must have one writer, but process {file.read() or '?'} is writing to "
                "it; wait for that run, stop it, or choose another --out"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
