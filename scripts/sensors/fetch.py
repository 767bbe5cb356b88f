"""Fetches recordings of sensors and writes them as manifests; nothing of it is shipped.

    python -m scripts.sensors.fetch --out data/sensors

The recordings are in the wheel of aeon 1.6.0, which is downloaded by pip, checked and not
installed. They come from public archives (UCR and UEA, timeseriesclassification.com) without an
explicit licence; every sample says so. The archive's split into training and test data is kept:
`train.jsonl` and `test.jsonl`. For choosing settings the training data are split once more:
`fit.jsonl`, and every third recording of a class in `val.jsonl`. Who was recorded is not said in
the files, so recordings cannot be kept together by person or machine.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pathweave.bases.progress import terminal_report
from pathweave.bases.weights_manifest import WheelSource
from pathweave.bases.wheel import unpack_wheel
from pathweave.data.manifest import write_manifest

PARTS = {"train": "TRAIN", "test": "TEST"}
LICENCE = "no explicit licence; public archive"
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
VALIDATION_EVERY = 3  # recordings of a class


@dataclass(frozen=True)
class SensorSet:
    """One set of the wheel.

    Attributes:
        archive: Its name there.
        question: What is asked about every recording.
        answers: What is answered, by label.
    """

    archive: str
    question: str
    answers: dict[str, str]

    @property
    def members(self) -> dict[str, str]:
        """Files of the wheel, and the names they get."""
        names = [f"{self.archive}_{part}.ts" for part in PARTS.values()]
        return {f"aeon/datasets/data/{self.archive}/{name}": name for name in names}


def _numbered(*answers: str, start: int = 1) -> dict[str, str]:
    return {str(label): answer for label, answer in enumerate(answers, start)}


SETS = {
    "motion": SensorSet(
        "BasicMotions",
        "Which activity?",
        {each: each for each in ("standing", "running", "walking", "badminton")},
    ),
    "gesture": SensorSet(
        "PickupGestureWiimoteZ",
        "Which gesture?",
        _numbered(
            "pick", "shake", "right", "left", "up", "down",
            "left circle", "right circle", "forward", "back",
        ),
    ),
    "leaf": SensorSet("OSULeaf", "Which leaf?", _numbered(*NUMBERS[:6])),
    "appliance": SensorSet(
        "ACSF1",
        "Which appliance?",
        _numbered(
            "phone", "coffee", "computer", "fridge", "music",
            "lamp", "laptop", "microwave", "printer", "television",
            start=0,
        ),
    ),
    "demand": SensorSet(
        "ItalyPowerDemand", "Which season?", _numbered("winter", "summer")
    ),
    "speaker": SensorSet(
        "JapaneseVowels", "Which speaker?", _numbered(*NUMBERS[:9])
    ),
}  # fmt: skip

WHEEL = WheelSource(
    kind="wheel",
    package="aeon",
    version="1.6.0",
    file="aeon-1.6.0-py3-none-any.whl",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    num_bytes=6_421_000,
    members={member: name for each in SETS.values() for member, name in each.members.items()},
)


def read_ts(file: Path) -> Iterator[tuple[Float32[np.ndarray, "time channels"], str]]:
    """Yield the recordings of a ``.ts`` file of the archive, and their labels.

    A line is a recording: channels and at last the label, with a colon between, values with a
    comma. Values at the end that are missing in every channel only fill it up, and are left out.
    """
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = next(n for n, line in enumerate(lines, 1) if line.strip().lower() == "@data")
    for line in filter(str.strip, lines[begin:]):
        *channels, label = line.strip().split(":")
        rows = [[float("nan" if v == "?" else v) for v in row.split(",")] for row in channels]
        longest = max(map(len, rows))
        values = np.array([row + [np.nan] * (longest - len(row)) for row in rows], np.float32).T
        there = np.flatnonzero(~np.isnan(values).all(axis=1))
        yield values[: there[-1] + 1], label.strip().lower()


def write_set(name: str, about: SensorSet, files: Path, out: Path) -> str:
    """Write recordings and manifests of one set, and return a line about it."""
    directory = out / name
    directory.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, object]]] = {part: [] for part in ("fit", "val")}
    seen: Counter[str] = Counter()
    lengths = []
    for part, suffix in PARTS.items():
        rows: list[dict[str, object]] = []
        for i, (values, label) in enumerate(read_ts(files / f"{about.archive}_{suffix}.ts")):
            file = directory / f"{part}-{i:04d}.npy"
            np.save(file, values)
            lengths.append(len(values))
            content = [
                {"type": name, "path": file.name},
                {"type": "text", "text": about.question},
            ]
            answer = {"role": "assistant", "content": about.answers[label]}
            row: dict[str, object] = {
                "id": f"{name}-{file.stem}",
                "messages": [{"role": "user", "content": content}, answer],
                "choices": list(about.answers.values()),
                "source": f"{about.archive}, in {WHEEL.package} {WHEEL.version}",
                "licence": LICENCE,
            }
            rows.append(row)
            if part == "train":
                seen[label] += 1
                found["fit" if seen[label] % VALIDATION_EVERY else "val"].append(row)
        found[part] = rows
    for part, part_rows in found.items():
        write_manifest(directory / f"{part}.jsonl", part_rows)
    sizes = ", ".join(f"{part} {len(part_rows)}" for part, part_rows in found.items())
    channels = values.shape[1]
    return f"{name}: {about.archive}, {channels} x {min(lengths)} to {max(lengths)}, {sizes}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/sensors"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work, terminal_report() as report:
        unpack_wheel("aeon", WHEEL, Path(work), Path(work), report)
        lines = [write_set(name, about, Path(work), out) for name, about in SETS.items()]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
