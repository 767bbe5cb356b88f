"""Corpora encoded ahead of training: manifests in, features out, in a store that training reads.

The work is cut into blocks of rows. Whoever encodes a block looks each medium up in the store
first, and the one process that hands the blocks out notes each that is done in ``encoded.jsonl``;
so a run that was stopped, or of which workers were killed, goes on where it was, and a finished
one has nothing to do.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.data.cache import FeatureCache
from pathweave.data.manifest import Manifest
from pathweave.display import Display
from pathweave.errors import PathWeaveError, RunError
from pathweave.recipe.schema import Recipe
from pathweave.storage.atomic import disk_errors, sha256_bytes, sole_writer, write_atomic
from pathweave.train.corpus_workers import (
    BlockResult,
    Encoding,
    RowBlock,
    Work,
    encode_here,
    encode_in_processes,
    encode_on_ray,
)

DONE, FAILURES = "encoded.jsonl", "failures.jsonl"
BLOCK_ROWS = 128


def encode_corpus(
    recipe: Recipe,
    manifests: Sequence[Path],
    out: Path,
    ray: str | None = None,
    workers: int | None = None,
    is_trusted: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Encode the media of manifests into a store of features; what is there already is kept.

    Media that failed before are tried again. Failures are listed in ``failures.jsonl``.

    Args:
        recipe: Says how media of each modality are decoded and encoded.
        manifests: The manifests.
        out: Directory of the store.
        ray: Address of a Ray that does the work; None does it on this machine.
        workers: Number of processes; None is one, on a Ray one a processor.
        is_trusted: Whether code that the recipe names may be run by workers.
        quiet: Show no progress.

    Returns:
        ``rows`` and ``blocks`` of all manifests, the media ``encoded`` and ``found`` in this call,
        ``failed`` in all, the list of which is ``failures``, and the ``store``: its media, bytes
        and files.

    Raises:
        ManifestError: If a manifest cannot be opened.
        RecipeError: If a manifest has media of a modality that is not declared.
        RunError: If a worker is killed for good, or there is no Ray at the address.
        BusyError: If another process encodes into the directory.
        DiskError: If it cannot be written.
    """
    opened = [Manifest(path) for path in manifests]
    paths = tuple(str(path.absolute()) for path in manifests)
    work = Work(recipe, paths, str(out.absolute()), is_trusted)
    encoded = found = 0
    with sole_writer(out), Display(quiet) as display:
        progress = _Progress(out, opened, work)
        blocks = list(progress.blocks())
        total = sum(map(len, opened))
        left = sum(block.stop - block.start for block in blocks)
        bar = display.bar("encode", total=total, done=total - left)
        with closing(_results(work, blocks, ray, workers)) as results:
            for result in results:
                if result.refused:
                    raise RunError(f"{manifests[result.block.manifest]}: {result.refused}")
                progress.note(result)
                encoded, found = encoded + result.encoded, found + result.found
                bar.advance(result.block.stop - result.block.start)
        bar.close()
        failed = progress.write_failures()
    return {
        "rows": total,
        "encoded": encoded,
        "found": found,
        "failed": failed,
        "failures": str(out / FAILURES) if failed else None,
        "store": FeatureCache(out).size()["store"],
    }


def _results(
    work: Work, blocks: Sequence[RowBlock], ray: str | None, workers: int | None
) -> Generator[BlockResult, None, None]:
    if ray is not None and blocks:
        yield from encode_on_ray(work, blocks, ray, workers)
    elif workers is not None and workers > 1 and blocks:
        yield from encode_in_processes(work, blocks, workers)
    elif blocks:
        yield from encode_here(work, blocks)


@dataclass
class _State:
    """What is done of a manifest."""

    done: np.ndarray
    failed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def take(self, result: BlockResult) -> None:
        rows = range(result.block.start, result.block.stop)
        self.done[rows.start : rows.stop] = True
        for row in [row for row in rows if row in self.failed]:
            del self.failed[row]
        for each in result.failed:
            self.failed.setdefault(each["row"], []).append(each)


class _Progress:
    """What has been done, as noted in a file to which one line a block is appended."""

    def __init__(self, out: Path, manifests: Sequence[Manifest], work: Work) -> None:
        self._file, self._out, self._manifests = out / DONE, out, manifests
        self._names = [_name(manifest) for manifest in manifests]
        self._states = [_State(np.zeros(len(manifest), bool)) for manifest in manifests]
        self._work = work
        for number, result in self._noted():
            self._states[number].take(result)

    def _noted(self) -> Iterator[tuple[int, BlockResult]]:
        """Yield what was noted of these manifests, and is still so."""
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        if not text.endswith("\n"):  # the last line was cut off
            with disk_errors(self._file), self._file.open("a", encoding="utf-8") as file:
                file.write("\n")
        encoding: Encoding | None = None
        same: dict[tuple[str, str], bool] = {}
        for line in text.splitlines():
            try:
                name, fields = json.loads(line)
                result = BlockResult.from_fields(fields)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # it was cut off
            if any(not Path(segment).exists() for segment in result.segments):
                continue  # its features were deleted
            if name not in self._names:
                continue
            for item in result.readers.items():
                if item not in same:
                    encoding = encoding or Encoding(self._work)
                    same[item] = _is_same(encoding, *item)
            if all(same[item] for item in result.readers.items()):
                yield self._names.index(name), result

    def blocks(self) -> Iterator[RowBlock]:
        """Yield what is left to do, failures among it."""
        for number, state in enumerate(self._states):
            left = ~state.done
            left[list(state.failed)] = True
            edges = np.flatnonzero(np.diff(left, prepend=False, append=False)).tolist()
            for start, stop in zip(edges[::2], edges[1::2], strict=True):
                for first in range(start, stop, BLOCK_ROWS):
                    yield RowBlock(number, first, min(first + BLOCK_ROWS, stop))

    def note(self, result: BlockResult) -> None:
        """Note that a block is done."""
        number = result.block.manifest
        self._states[number].take(result)
        line = json.dumps([self._names[number], asdict(result)]) + "\n"
        with disk_errors(self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(line)

    def write_failures(self) -> int:
        """Write the list of all failures, and return how many there are."""
        lines = [
            json.dumps({"manifest": str(manifest.path), **each}, ensure_ascii=False) + "\n"
            for manifest, state in zip(self._manifests, self._states, strict=True)
            for row in sorted(state.failed)
            for each in state.failed[row]
        ]
        if lines:
            write_atomic(self._out / FAILURES, "".join(lines).encode("utf-8", "backslashreplace"))
        else:
            (self._out / FAILURES).unlink(missing_ok=True)
        return len(lines)


def _is_same(encoding: Encoding, modality: str, known_as: str) -> bool:
    try:
        return encoding.known_as(modality) == known_as
    except PathWeaveError:
        return False  # not declared now; whoever needs it is told


def _name(manifest: Manifest) -> str:
    """Return what tells a manifest from others and from what it was before it was changed."""
    about = [(str(file.absolute()), file.stat()) for file in manifest.files]
    told = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in about]
    return sha256_bytes(json.dumps(told).encode())
