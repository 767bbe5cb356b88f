"""What it costs to tell a sequence its order, and to read recordings: parameters and time a step.

    python -m benchmarks.sensor_inputs [--small] [--rounds N] [--out DIR]

A step is one of training on the small base: 16 recordings of one channel and 427 samples, or as
many tokens as the patch encoder makes of them. A figure is the ratio of processor time to a path
that reads its tokens as a set.
"""

import importlib
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.nn.kernels import KernelSpec
from pathweave.nn.patches import PatchSpec
from pathweave.runs.loading import load_base

BATCH, LENGTH, TOKENS, WIDTH = 16, 427, 54, 128
SET = "tokens as a set"
PATHS = {
    SET: PathSpec("unordered", WIDTH, 4),
    "sinusoids": PathSpec("sinusoids", WIDTH, 4, positions="sinusoidal"),
    "learned positions": PathSpec("table", WIDTH, 4, positions="learned"),
    "patch encoder": PathSpec(
        "patches", 2, 4, positions="sinusoidal", patches=PatchSpec(16, 8, WIDTH)
    ),
    "kernel encoder": PathSpec("kernels", 2, 4, positions="sinusoidal", patches=KernelSpec(LENGTH)),
}


def add_path(model: PathWeave, spec: PathSpec, batch: int) -> Callable[[], None]:
    """Add a path to a model; return its step of training on random media."""
    path = model.paths.expand(spec)
    features = torch.randn(batch, 1, TOKENS, WIDTH)
    if spec.patches is not None:
        values = torch.randn(batch, 1, LENGTH, 1).cumsum(2)
        features = torch.cat([values, torch.ones_like(values)], dim=3)
    path.standardise_input([*features[:, 0]])
    prompts: list[Prompt] = [[Medium(spec.name, each), "Which leaf?"] for each in features]
    optimizer = torch.optim.AdamW(path.parameters(), fused=True)

    def step() -> None:
        loss, tokens = model(prompts, ["one"] * batch)
        (loss / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    torch.manual_seed(0)
    base = importlib.import_module("tests.tiny").tiny_base() if given.small else load_base("mini")
    model, batch = PathWeave(base), 2 if given.small else BATCH
    steps = {label: add_path(model, spec, batch) for label, spec in PATHS.items()}
    model.train()
    times = in_turn(steps, given.rounds, time.process_time)
    settings = {"batch": batch, "tokens": TOKENS, "samples": LENGTH, "relative to": SET}
    report = Report("sensor_inputs", "What do order and raw recordings cost in training?", settings)
    for label, spec in PATHS.items():
        counts = model.paths[spec.name].count()
        note = f"{counts['input'] + counts.get('patches', 0):,} input parameters"
        report.figures.append(Figure(label, ratio(times, label, SET), note=note))
    report.finish(given.out)


if __name__ == "__main__":
    main()
