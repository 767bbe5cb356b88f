"""The table of docs/sensors.md: what the paths of a grid answer, beside other methods.

    python -m scripts.sensors.table --runs runs/sensors

The grid is that of recipes/sensors_grid.yaml; cells that are not done are left out. Scores of the
other methods are those that scripts/sensors/references.py wrote. Text alone is what the paths
answer when their media are blanked: one answer, as all samples of a set ask the same. The probe is
a ridge regression to the answers on the features of a path's own kernel encoder.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathweave.compare.tables import ReportTable, markdown
from pathweave.evaluate.results import Results
from pathweave.nn.kernels import KernelEncoder
from pathweave.runs.assistant import Assistant, load

HEADER = [
    "set", "train", "test", "majority", "text alone", "first", "after others", "probe",
    "MiniRocket",
    "1-NN DTW",
]  # fmt: skip

KINDS = ("first", "after", "text_alone", "probe")
RIDGE = 100.0  # the best of 1, 10, 100, 1,000 on validation data
Scores = dict[str, dict[str, list[float]]]


def scores(runs: Path, data: Path) -> Scores:
    """Return the scores of whole test sets by set and kind, a run after another.

    Kinds are `first`, of a path without predecessors, `after`, of one with some, `text_alone` and
    `probe`.
    """
    found: Scores = {}
    for file in sorted(runs.glob("runs/*/*/seed-*/results.json")):
        results, assistant = Results.load(file), load(file.parent)
        for name in results.curriculum:
            kinds = found.setdefault(name, {kind: [] for kind in KINDS})
            score = results.datasets[name][0].whole
            if score is None:
                raise SystemExit(f"{file} must hold scores of whole test sets, got none; finish it")
            kinds["first" if name == results.curriculum[0] else "after"].append(score)
            kinds["text_alone"].append(without_media(assistant, name, data))
            encoder = assistant.model.paths[name].patches
            if isinstance(encoder, KernelEncoder):
                kinds["probe"].append(probe(encoder, data / name))
    return found


def without_media(assistant: Assistant, name: str, data: Path) -> float:
    """Return the accuracy of the answer that a path gives to its question with a blank medium."""
    manifest = data / name / "test.jsonl"
    samples = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    medium, question = samples[0]["messages"][0]["content"]
    part = {**medium, "path": str(manifest.parent / medium["path"])}
    [answer] = assistant.ask([[part, question]], max_tokens=4, blind=True)
    right = [sample["messages"][1]["content"][0]["text"] for sample in samples]
    return 100 * mean(answer.strip().lower() == each for each in right)


def read(manifest: Path) -> tuple[list[Tensor], list[str]]:
    """Return recordings as an encoder of series gives them, and answers."""
    units, answers = [], []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        asked, answered = json.loads(line)["messages"]
        values = torch.tensor(np.load(manifest.parent / asked["content"][0]["path"]))
        units.append(torch.cat([values.nan_to_num(), (~values.isnan()).float()], dim=1))
        answers.append(answered["content"][0]["text"])
    return units, answers


@torch.no_grad()
def probe(encoder: KernelEncoder, directory: Path) -> float:
    """Return the accuracy of ridge regression on the features that a path projects to a token."""
    (train, answers), (test, right) = (read(directory / f"{p}.jsonl") for p in ("train", "test"))
    known, asked = (
        torch.cat([encoder.features([unit])[0] for unit in units]) for units in (train, test)
    )
    classes = sorted(set(answers))
    targets = 2.0 * torch.eye(len(classes))[[classes.index(each) for each in answers]] - 1
    kernel = known @ known.T + RIDGE * torch.eye(len(known))
    found = (asked @ known.T @ torch.linalg.solve(kernel, targets)).argmax(1)
    return 100 * mean(classes[i] == each for i, each in zip(found.tolist(), right, strict=True))


def _told(values: list[float]) -> str:
    spread = f" +- {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}" if values else ""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/sensors"))
    parser.add_argument("--data", type=Path, default=Path("data/sensors"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    file = options.results / "sensors_references.json"
    references: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    rows, written = [], {}
    for name, ours in scores(options.runs, options.data).items():
        other = references[name]
        written[name] = {**other, **ours}
        sizes = str(other["train"]), str(other["test"]), f"{other['majority']:.1f}"
        values = (
            ours["text_alone"],
            ours["first"],
            ours["after"],
            ours["probe"],
            other["minirocket"],
        )
        rows.append([name, *sizes, *map(_told, values), f"{other['dtw']:.1f}"])
    text = json.dumps(written, indent=1) + "\n"
    (options.results / "sensors.json").write_text(text, encoding="utf-8")
    print(markdown(ReportTable("Accuracy on the test sets, %", HEADER, rows)))


if __name__ == "__main__":
    main()
