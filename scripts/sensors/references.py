"""What other methods reach on the sensor sets: the majority, MiniRocket, nearest neighbour by DTW.

    python -m venv .venv-aeon && .venv-aeon/bin/pip install aeon==1.6.0
    .venv-aeon/bin/python scripts/sensors/references.py --data data/sensors \
        --out docs/results/sensors_references.json

It reads the manifests that `scripts.sensors.fetch` wrote and needs nothing of this package. All
methods learn from the whole training set. MiniRocket draws its kernels' biases at random, so it is
given three seeds; where recordings differ in length it gets them followed by zeros.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from aeon.classification.convolution_based import (  # type: ignore[import-not-found]
    MiniRocketClassifier,
)
from aeon.classification.distance_based import (  # type: ignore[import-not-found]
    KNeighborsTimeSeriesClassifier,
)

SEEDS = (0, 1, 2)


def read(manifest: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return recordings, [channels, time], and answers."""
    recordings, answers = [], []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        asked, answered = json.loads(line)["messages"]
        file = manifest.parent / asked["content"][0]["path"]
        recordings.append(np.load(file).T.astype(np.float64))
        answers.append(answered["content"][0]["text"])
    return recordings, np.array(answers)


def side_by_side(recordings: list[np.ndarray], length: int) -> np.ndarray:
    """Return recordings of one length, followed by zeros."""
    return np.stack([np.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in recordings])


def references(directory: Path) -> dict[str, object]:
    """Return the accuracy of each method on one set, in percent."""
    (train, answers), (test, right) = (read(directory / f"{p}.jsonl") for p in ("train", "test"))
    longest = max(x.shape[1] for x in (*train, *test))
    known, asked = side_by_side(train, longest), side_by_side(test, longest)
    [(majority, _)] = Counter(answers.tolist()).most_common(1)
    rocket = [
        MiniRocketClassifier(random_state=seed).fit(known, answers).predict(asked) for seed in SEEDS
    ]
    nearest = KNeighborsTimeSeriesClassifier(distance="dtw", n_neighbors=1).fit(train, answers)
    return {
        "train": len(train),
        "test": len(test),
        "classes": len(set(answers.tolist())),
        "majority": 100 * float((right == majority).mean()),
        "minirocket": [100 * float((found == right).mean()) for found in rocket],
        "dtw": 100 * float((nearest.predict(test) == right).mean()),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sensors"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/sensors_references.json"))
    options = parser.parse_args()
    found = {}
    for directory in sorted(filter(Path.is_dir, options.data.iterdir())):
        found[directory.name] = references(directory)
        print(directory.name, found[directory.name], flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
