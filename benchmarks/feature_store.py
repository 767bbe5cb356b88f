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
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.storage.atomic import new_file
from pathweave.storage.feature_store import FeatureStore

SHAPE = (1, 9, 128)


class Store:
    """Features in a store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, keys: list[bytes], features: Tensor) -> None:
        """Write features under each key, where there is nothing yet."""
        shutil.rmtree(self.directory, ignore_errors=True)
        opened = FeatureStore(self.directory)
        for key in keys:
            opened.add(key, features)

    def read(self, keys: list[bytes]) -> None:
        """Read the features of each key."""
        opened = FeatureStore(self.directory)
        for key in keys:
            assert opened.find(key) is not None

    def miss(self, keys: list[bytes]) -> None:
        """Look for keys that are not there."""
        opened = FeatureStore(self.directory)
        assert not any(key in opened for key in keys)


class Files(Store):
    """Features in the older form."""

    def _file(self, key: bytes) -> Path:
        return self.directory / key.hex()[:2] / f"{key.hex()[2:]}.safetensors"

    def write(self, keys: list[bytes], features: Tensor) -> None:
        """Write features under each key, where there is nothing yet."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for key in keys:
            with new_file(self._file(key), sync=False) as temporary:
                temporary.write_bytes(save({"features": features}))

    def read(self, keys: list[bytes]) -> None:
        """Read the features of each key."""
        for key in keys:
            load(self._file(key).read_bytes())

    def miss(self, keys: list[bytes]) -> None:
        """Look for keys that are not there."""
        assert not any(self._file(key).exists() for key in keys)


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
    features = torch.randn(SHAPE).half()
    shuffled, absent = random.Random(0).sample(keys, count), [key[::-1] for key in keys]
    with tempfile.TemporaryDirectory() as directory:
        store, files = Store(Path(directory) / "store"), Files(Path(directory) / "files")
        steps: dict[str, Callable[[Store], None]] = {
            "write": lambda form: form.write(keys, features),
            "read": lambda form: form.read(shuffled),
            "look for in vain": lambda form: form.miss(absent),
        }
        for label, step in steps.items():
            both = {"store": partial(step, store), "files": partial(step, files)}
            times = in_turn(both, given.rounds, time.process_time)
            each = statistics.median(times["store"]) / count * 1e6
            report.figures += [
                Figure(f"{label}: a medium", each, "us"),
                Figure(f"{label}: a file a medium takes", ratio(times, "files", "store"), "x"),
            ]
        for name, form in {"store": store, "files": files}.items():
            found = [file for file in form.directory.rglob("*") if file.is_file()]
            size = sum(file.stat().st_blocks * 512 for file in found) / count
            report.figures += [
                Figure(f"number of files: {name}", len(found), "files"),
                Figure(f"disk a medium: {name}", size, "bytes", note="blocks of the file system"),
            ]
    report.finish(given.out)


if __name__ == "__main__":
    main()
