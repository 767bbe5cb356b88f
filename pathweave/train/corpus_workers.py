"""Workers that encode the media of a corpus: in this process, in several, or on a Ray."""

import contextlib
import logging
import math
import multiprocessing
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pathweave.data.cache import FeatureCache
from pathweave.data.manifest import Manifest
from pathweave.data.messages import Part
from pathweave.data.readers import FeatureReader
from pathweave.encoders import BASE
from pathweave.errors import ManifestError, MediaError, PathWeaveError, RecipeError, RunError
from pathweave.extras import import_extra
from pathweave.parts import trust_code
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import make_readers, new_model
from pathweave.storage.atomic import sha256_bytes
from pathweave.validation import unknown

RAY_TASKS = 4096  # at most; each holds some blocks
AHEAD = 2  # blocks that are handed out for each process


@dataclass(frozen=True)
class Work:
    """What is to be encoded, as plain values that any worker can be sent.

    Attributes:
        recipe: The recipe.
        manifests: The manifests, as absolute paths.
        out: Directory of the store.
        is_trusted: Whether code that the recipe names may be run.
    """

    recipe: Recipe
    manifests: tuple[str, ...]
    out: str
    is_trusted: bool = False


@dataclass(frozen=True)
class RowBlock:
    """Neighbouring rows of a manifest.

    Attributes:
        manifest: Number of the manifest.
        start: First row.
        stop: First row after it.
    """

    manifest: int
    start: int
    stop: int


@dataclass
class BlockResult:
    """What became of the media of a block.

    Attributes:
        block: The block.
        encoded: Media that were encoded.
        found: Media whose features were there.
        failed: Row, id, path and reason of each medium that has no features.
        readers: By modality a hash of what it was read with.
        segments: The files that the features are in.
        worker: Number of the process.
        refused: Why the work cannot go on, if it cannot.
    """

    block: RowBlock
    encoded: int = 0
    found: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    readers: dict[str, str] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    worker: int = 0
    refused: str | None = None

    def fail(self, row: int, id: str | None, path: str | None, error: PathWeaveError) -> None:
        """Note that a medium, or all media of a row that cannot be read, have no features."""
        self.failed.append({"row": row, "id": id, "path": path, "reason": str(error)})

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "BlockResult":
        """Return what ``asdict`` has taken apart."""
        return cls(**{**fields, "block": RowBlock(**fields["block"])})


class Encoding:
    """Encodes blocks; every worker has one.

    Args:
        work: What is to be encoded.

    Raises:
        PathWeaveError: If the recipe's parts cannot be made, or a manifest cannot be opened.
    """

    def __init__(self, work: Work) -> None:
        if work.is_trusted:
            trust_code()
        recipe = work.recipe
        media = {name: about for name, about in recipe.modalities.items() if not about.reads}
        kinds = {about.parts[1].kind for about in media.values()}
        base = new_model(recipe).base if BASE in kinds else None
        self._readers = make_readers(recipe, base, cache=FeatureCache(Path(work.out)))
        self._declared = list(media)
        self._manifests = [Manifest(Path(path)) for path in work.manifests]

    def __call__(self, block: RowBlock) -> BlockResult:
        """Encode what has no features yet; what is wrong with single media is noted."""
        result = BlockResult(block, worker=os.getpid())
        manifest = self._manifests[block.manifest]
        try:
            for row in range(block.start, block.stop):
                try:
                    sample = manifest[row]
                except ManifestError as error:
                    result.fail(row, None, None, error)
                    continue
                for part in (part for part in sample.prompt if not part.is_text):
                    try:
                        self._encode(manifest, part, result)
                    except MediaError as error:
                        result.fail(row, sample.id, part.path, error)
        except PathWeaveError as error:
            result.refused = str(error)
        return result

    def reader(self, modality: str) -> FeatureReader:
        """Return what reads media of a modality.

        Raises:
            RecipeError: If it is not declared, or reads others.
        """
        if modality not in self._declared:
            raise RecipeError(unknown("a part type of the manifest", modality, self._declared))
        reader = self._readers[modality]
        assert isinstance(reader, FeatureReader)
        return reader

    def known_as(self, modality: str) -> str:
        """Return a hash of all that the features of a modality depend on beside the media."""
        reader = self.reader(modality)
        return sha256_bytes(f"{reader.decoder.key}\n{reader.encoder.fingerprint}".encode())[:16]

    def _encode(self, manifest: Manifest, part: Part, result: BlockResult) -> None:
        reader = self.reader(part.type)
        if part.type not in result.readers:
            result.readers[part.type] = self.known_as(part.type)
        data, cache = manifest.read_media(part), reader.cache
        key = cache.key(reader.encoder, reader.decoder, data)
        segment = cache.store.segment_of(key)
        is_found = segment is not None or reader.is_cached(data)  # in the older form
        if segment is None:
            reader.read([(data, part.path or "")])
            segment = cache.store.segment_of(key)
        result.found += is_found
        result.encoded += not is_found
        if segment is not None and str(segment) not in result.segments:
            result.segments.append(str(segment))


def encode_here(work: Work, blocks: Sequence[RowBlock]) -> Iterator[BlockResult]:
    """Yield what became of each block, one after another in this process."""
    encoding = Encoding(work)
    yield from map(encoding, blocks)


def encode_in_processes(
    work: Work, blocks: Sequence[RowBlock], count: int
) -> Iterator[BlockResult]:
    """Yield what became of each block, encoded by so many processes of this machine.

    Raises:
        RunError: If one of them is killed.
    """
    waiting: deque[Future[BlockResult]] = deque()
    threads = max(1, torch.get_num_threads() // count)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start, (work, threads))
    try:
        for block in blocks:
            waiting.append(pool.submit(_encode, block))
            if len(waiting) >= AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RunError(
            "the processes that encode must live until they are done, got one that was killed, "
            "perhaps for want of memory; run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class Worker:
    """An encoding in another process, which passes on why it cannot be made.

    Args:
        work: What is to be encoded.
    """

    def __init__(self, work: Work) -> None:
        try:
            self._encode: Callable[[RowBlock], BlockResult] = Encoding(work)
        except PathWeaveError as error:
            self._encode = partial(BlockResult, refused=str(error))

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """Encode the block that a row of Ray Data names."""
        block = RowBlock(int(row["manifest"]), int(row["start"]), int(row["stop"]))
        return {"result": pickle.dumps(self._encode(block))}


_worker: Worker | None = None  # of a process of the pool


def _start(work: Work, threads: int) -> None:
    global _worker
    torch.set_num_threads(threads)
    _worker = Worker(work)


def _encode(block: RowBlock) -> BlockResult:
    assert _worker is not None
    result: BlockResult = pickle.loads(_worker(asdict(block))["result"])
    return result


def encode_on_ray(
    work: Work, blocks: Sequence[RowBlock], address: str, count: int | None
) -> Iterator[BlockResult]:
    """Yield what became of each block, encoded by actors of Ray Data, in any order.

    Ray starts an actor that dies again, and gives its blocks out again. How much is under way at
    once is limited by Ray Data.

    Args:
        work: What is to be encoded; its paths must be those of every machine.
        blocks: The blocks.
        address: Address of the Ray, or ``local``, which starts one on this machine.
        count: Number of actors; None is one a graphics processor, or else one a processor.

    Raises:
        PathWeaveError: If Ray is not installed.
        RunError: If there is no Ray at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What Ray tells of actors that died is no result.
    with contextlib.redirect_stdout(sys.stderr):
        ray: Any = import_extra("ray", "ray")
        data: Any = import_extra("ray.data", "ray")
        local = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"--ray must be the address of a Ray, got {address!r} ({reason}); start one with "
                "ray start --head, or take local"
            ) from error
        try:
            data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            actors, share = actors_for(ray.cluster_resources(), count)
            done = data.from_items(
                [asdict(block) for block in blocks],
                override_num_blocks=min(len(blocks), RAY_TASKS),
            ).map(
                Worker,
                fn_constructor_args=(work,),
                compute=data.ActorPoolStrategy(size=min(actors, len(blocks))),
                num_gpus=share,
            )
            for row in done.iter_rows():
                yield pickle.loads(row["result"])
        except ray.exceptions.RayError as error:
            raise RunError(
                f"the Ray at {address} must do the work, got {' '.join(str(error).split()):.500}; "
                "mend it, and run the same command again"
            ) from error
        finally:
            ray.shutdown()


def actors_for(resources: Mapping[str, float], count: int | None) -> tuple[int, float | None]:
    """Return how many actors a Ray is to start, and the share of a graphics processor of each.

    An actor sees no graphics processor unless it asks for a share of one; where there are some,
    every actor gets its share, and as many as there are if the number is not given.

    Args:
        resources: What the Ray has, as it says itself.
        count: Number of actors that was asked for.

    Example:
        >>> actors_for({"CPU": 16.0, "GPU": 4.0}, count=6)
        (6, 0.5)
    """
    graphics = int(resources.get("GPU", 0))
    actors = count or graphics or max(1, int(resources.get("CPU", 1)))
    return actors, 1 / math.ceil(actors / graphics) if graphics else None
