"""Files that are either whole or absent: atomic writes, JSON, hashes, one writer at a time."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pathweave.errors import BusyError, DiskError, PathWeaveError

# Beside the lock, as on Windows nobody else can read a file that is locked.
HOLDER = ".lock.pid"


def cache_home() -> Path:
    """Return the directory of fetched weights and cached features.

    It is ``$PATHWEAVE_HOME`` where set, else ``$XDG_CACHE_HOME/pathweave``, else
    ``~/.cache/pathweave``; a leading ``~`` is the home directory. The directory need not exist.

    Raises:
        DiskError: If there is a ``~``, or no variable is set, and the user has no home directory.
    """
    home, cache = os.environ.get("PATHWEAVE_HOME"), os.environ.get("XDG_CACHE_HOME")
    place = Path(home) if home else Path(cache or "~/.cache") / "pathweave"
    try:
        return place.expanduser()
    except RuntimeError as error:  # an unknown user, as in a container with a user id of its own
        raise DiskError(
            f"{place} must lie in a home directory that is known, got a user without one; set "
            "PATHWEAVE_HOME to a directory for weights and features, or HOME"
        ) from error


def features_home() -> Path:
    """Return the directory of cached features, which need not exist.

    Raises:
        DiskError: As ``cache_home``.
    """
    return cache_home() / "features"


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
        rule = f"a directory to write to must have a path in UTF-8, got {str(path)!a}"
        raise DiskError(f"{rule}; choose another") from error


@contextlib.contextmanager
def new_file(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield where to write a file that replaces ``path`` when the block ends without an error.

    A reader sees the old content or the new, never a part, also after a kill.

    Args:
        path: The file.
        sync: Whether that holds after a power cut, too.

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
            if sync:
                _sync(temporary)
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


def read_json(path: Path, rule: str, remedy: str, error: type[PathWeaveError]) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: The file.
        rule: What must be, such as ``run must hold scores.json``: the start of the message.
        remedy: What to do otherwise: its end.
        error: Class of the error.

    Raises:
        PathWeaveError: Of the class ``error``, if there is no such file, or it holds no JSON or no
            object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    # Lists in lists without end are too deep for the parser.
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{rule}, got {problem}; {remedy}") from problem
    if not isinstance(value, dict):
        raise error(f"{rule}, got a {type(value).__name__} in {path.name}; {remedy}")
    return value


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
        # Made by name and not by mkdtemp, so that it gets the usual permissions.
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        temporary.mkdir()
    try:
        with disk_errors(final):
            yield temporary
            readable = temporary.stat().st_mode & 0o666
            for file in temporary.rglob("*"):
                if file.is_file():
                    # Others write files that their user alone may read.
                    file.chmod(file.stat().st_mode | readable)
                    _sync(file)
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


def _sync(file: Path) -> None:
    # Opened to be written to, without which Windows syncs nothing.
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def holder_of(directory: Path) -> str:
    """Return the process that holds a directory; ? if that is not known."""
    try:
        return (directory / HOLDER).read_text(encoding="utf-8")
    except OSError:
        return "?"


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for one process; the lock ends with the process, however it ends.

    Raises:
        BusyError: If another process holds it.
        DiskError: If it cannot be written, or its path is not UTF-8.
    """
    check_path(directory)
    lock = FileLock(directory / ".lock")
    holder = directory / HOLDER
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise BusyError(
                f"{directory} must have one writer, but process {holder_of(directory)} is writing "
                "to it; wait for that run, stop it, or choose another --out"
            ) from error
    try:
        with disk_errors(directory):
            holder.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
