"""What ``pathweave compare --jobs 2`` saves: two short cells, one after another and side by side.

    python -m benchmarks.side_by_side [--small] [--rounds N] [--out DIR]

Before the clock starts, a third cell has filled the feature cache and trained the first stage.
"""

import importlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, Report, options, ratio
from pathweave.compare.grid import Grid, load_grid
from pathweave.compare.run_grid import run_grid

MINI = Path(__file__).resolve().parents[1] / "recipes" / "mcl_mini.yaml"
GRID = """
name: side by side
recipe: {recipe}
seeds: [0]
set:
  modalities.{names[0]}.training.steps: {first}
  training.steps: {steps}
  training.warmup: 5
  evaluation.subset: {subset}
  evaluation.whole_at_end: false
reference: pathweave
methods:
  adapters: {{method.in_adapter: null, method.gate: null}}
  pathweave: {{}}
  no_gate: {{method.gate: null}}
orders:
  main: [{names[0]}, {names[1]}]
"""
TIMED = ("pathweave", "no_gate")
ALONE, TOGETHER = "one after another", "side by side"


def seconds(grid: Grid, prepared: Path, out: Path, jobs: int) -> float:
    """Return how long the timed cells take, begun from a prepared first stage."""
    shutil.copytree(prepared, out)
    start = time.perf_counter()
    outcome = run_grid(grid, out, TIMED, jobs, quiet=True)
    elapsed = time.perf_counter() - start
    if outcome.failed:
        raise SystemExit(f"cells must run, got {outcome.failed}; mend that and start again")
    return elapsed


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = options(__doc__)
    parser.set_defaults(rounds=1)  # of two minutes
    given = parser.parse_args(words)
    names, sizes = ("image", "depth"), {"first": 20, "steps": 80, "subset": 60}
    times: dict[str, list[float]] = {ALONE: [], TOGETHER: []}
    with tempfile.TemporaryDirectory() as directory:
        root, recipe = Path(directory), MINI
        if given.small:
            names, sizes = ("sight", "sound"), {"first": 6, "steps": 6, "subset": 4}
            recipe = importlib.import_module("tests.tiny").write_tiny_recipe(root, *names)
        text = GRID.format(recipe=recipe, names=names, **sizes)
        (root / "grid.yaml").write_text(text, encoding="utf-8")
        grid = load_grid(root / "grid.yaml")
        run_grid(grid, root / "prepared", ["adapters"], quiet=True)
        for turn in range(given.rounds):
            for jobs, (label, found) in enumerate(times.items(), 1):
                found.append(seconds(grid, root / "prepared", root / f"{label} {turn}", jobs))
    report = Report("side_by_side", "What do two cells at a time save?", {"steps": sizes["steps"]})
    for label, found in times.items():
        report.figures.append(Figure(f"two cells {label}", statistics.median(found), "s"))
    report.figures.append(Figure(f"{TOGETHER}, to {ALONE}", ratio(times, TOGETHER, ALONE)))
    report.finish(given.out)


if __name__ == "__main__":
    main()
