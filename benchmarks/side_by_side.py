"""What ``pathweave compare --jobs 2`` saves: two short cells, one after another and side by side.

python benchmarks/side_by_side.py            (last output: benchmarks/side_by_side.txt)

The figure is a ratio of two times of one run. Before the clock starts, a third cell has filled the
feature cache and trained the first stage.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch

from pathweave.compare.grid import Grid, load_grid
from pathweave.compare.run_grid import run_grid

MINI = Path(__file__).resolve().parents[1] / "recipes" / "mcl_mini.yaml"
GRID = """
name: side by side
recipe: {mini}
seeds: [0]
set:
  modalities.image.training.steps: {first}
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
  main: [image, depth]
"""
TIMED = ("pathweave", "no_gate")


def seconds(grid: Grid, prepared: Path, out: Path, jobs: int) -> float:
    """Return how long the timed cells take, begun from a prepared first stage."""
    shutil.copytree(prepared, out)
    start = time.perf_counter()
    outcome = run_grid(grid, out, TIMED, jobs, quiet=True)
    elapsed = time.perf_counter() - start
    if outcome.failed:
        raise SystemExit(f"cells must run, got {outcome.failed}; mend that and start again")
    return elapsed


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=20, help="steps of the first stage")
    parser.add_argument("--steps", type=int, default=80, help="steps of the second")
    parser.add_argument("--subset", type=int, default=60, help="test samples of each set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "grid.yaml").write_text(GRID.format(mini=MINI, **vars(options)), encoding="utf-8")
        grid = load_grid(root / "grid.yaml")
        run_grid(grid, root / "prepared", ["adapters"], quiet=True)
        alone = seconds(grid, root / "prepared", root / "alone", jobs=1)
        together = seconds(grid, root / "prepared", root / "together", jobs=2)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {options.steps} steps a cell")
    print(f"one after another  {alone:6.1f} s")
    print(f"side by side       {together:6.1f} s")
    print(f"side by side takes {together / alone:.2f} of the time")


if __name__ == "__main__":
    main()
