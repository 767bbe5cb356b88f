"""What features cost on disk: many in few large files, against a file a medium.

    python -m benchmarks.feature_store [--small] [--rounds N] [--out DIR]

Features of the size of a small picture's are written, read in another order, and looked for in
vain, in a store and in the form before it: safetensors files in folders of two letters. Times are
of the processor, as those of a disk that others use say little.
"""

import hashlib
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.storage.atomic import new_file
from pathweave.storage.feature_store import FeatureStore

SHAPE = (1, 9, 128)


def file_of(directory: Path, key: bytes) -> Path:
    """Return the file that has the features of a key, in the older form."""
    return directory / key.hex()[:2] / f"{key.hex()[2:]}.safetensors"


def variants(root: Path, keys: list[bytes]) -> dict[str, dict[str, Callable[[], None]]]:
    """Return what is measured, by step and form."""
    features = torch.randn(SHAPE).half()
    absent = [key[::-1] for key in keys]
    shuffled = random.Random(0).sample(keys, len(keys))
    store, files = root / "store", root / "files"

    def write_store() -> None:
        shutil.rmtree(store, ignore_errors=True)
        opened = FeatureStore(store)
        for key in keys:
            opened.add(key, features)

    def write_files() -> None:
        shutil.rmtree(files, ignore_errors=True)
        for key in keys:
            with new_file(file_of(files, key), sync=False) as temporary:
                temporary.write_bytes(save({"features": features}))

    def read_store() -> None:
        opened = FeatureStore(store)
        for key in shuffled:
            assert opened.find(key) is not None

    def read_files() -> None:
        for key in shuffled:
            load(file_of(files, key).read_bytes())

    def miss_store() -> None:
        opened = FeatureStore(store)
        assert not any(key in opened for key in absent)

    def miss_files() -> None:
        assert not any(file_of(files, key).exists() for key in absent)

    return {
        "write": {"store": write_store, "files": write_files},
        "read": {"store": read_store, "files": read_files},
        "look for in vain": {"store": miss_store, "files": miss_files},
    }


def main() -> None:
    """Measure and report."""
    given = options(__doc__).parse_args()
    count = 200 if given.small else 20_000
    keys = [hashlib.sha256(b"%d" % i).digest() for i in range(count)]
    report = Report(
        "feature_store",
        "What do features cost on disk?",
        {"media": count, "shape": "x".join(map(str, SHAPE))},
    )
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for step, both in variants(root, keys).items():
            times = in_turn(both, given.rounds, time.process_time)
            each = statistics.median(times["store"]) / count * 1e6
            report.figures += [
                Figure(f"{step}: a medium", each, "us"),
                Figure(f"{step}: a file a medium takes", ratio(times, "files", "store"), "x"),
            ]
        for form in ("store", "files"):
            found = [file for file in (root / form).rglob("*") if file.is_file()]
            size = sum(file.stat().st_blocks * 512 for file in found) / count
            report.figures += [
                Figure(f"number of files: {form}", len(found), "files"),
                Figure(f"disk a medium: {form}", size, "bytes", note="blocks of the file system"),
            ]
    report.finish(given.out)


if __name__ == "__main__":
    main()
