"""A cell in a process of its own, so that its memory is its own and a crash ends it alone."""

import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch

from pathweave import __version__
from pathweave.compare.cell import CellResult, collect, save_cell
from pathweave.compare.declaration import Cell, recipe_hash
from pathweave.compare.sessions import sessions
from pathweave.errors import PathWeaveError
from pathweave.evaluate.inspect import inspect_run
from pathweave.evaluate.results import Results
from pathweave.recipe.schema import Recipe
from pathweave.runs.path_directory import describe_path, versions
from pathweave.runs.run_directory import RunDirectory
from pathweave.train.evolve import EXIT_INTERRUPTED, evolve_recipe
from pathweave.train.log import RunLog

EXIT_FAILED = 1


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Attributes:
        recipe: The run.
        directory: Its directory.
        cell: The cell whose result is to be written; None for a first stage alone.
        result: The file of the result.
        num_threads: Threads of one operation.
        environment: Environment variables; the process is forked from a server that is older.
    """

    recipe: Recipe
    directory: Path
    cell: Cell | None
    result: Path | None
    num_threads: int
    environment: Mapping[str, str]


def work(job: Job) -> None:
    """Run a job and end the process: 0 done, 130 stopped on request, else failed."""
    os.setpgid(0, 0)  # Ctrl-C reaches the grid alone, which passes it on once
    os.environ.update(job.environment)
    torch.set_num_threads(job.num_threads)
    _stop_with_parent()
    with (job.directory / "output.txt").open("w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    try:
        with _session(RunDirectory(job.directory)):
            evolve_recipe(job.recipe, job.directory, quiet=True)
        gc.collect()  # the model is to be gone before gate usage loads it again
        if job.cell is not None and job.result is not None:
            _record(job.cell, RunDirectory(job.directory), job.result)
    except PathWeaveError as error:
        print(f"error: {error}", flush=True)  # noqa: T201 (to the file of this process)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_FAILED)


@contextmanager
def _session(run: RunDirectory) -> Iterator[None]:
    """Record how long a session took and how much memory, however it ends."""
    began = time.perf_counter()
    try:
        yield
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        seconds = round(time.perf_counter() - began, 1)
        RunLog(run.log).event("session", seconds=seconds, peak_memory_bytes=peak)


def _record(cell: Cell, run: RunDirectory, file: Path) -> None:
    tensors, ids = collect(cell.recipe, run)
    spent = sessions(run.log)
    result = CellResult(
        method=cell.method,
        order=cell.order,
        seed=cell.seed,
        recipe_hash=recipe_hash(cell.recipe),
        results=Results.load(run.results),
        gate_usage=_gate_usage(cell.recipe, run),
        seconds=spent.seconds,
        shared_seconds=spent.shared_seconds,
        peak_memory_bytes=spent.peak_memory_bytes,
        versions={**versions(), "pathweave": __version__},
        ids=ids,
        samples="",
    )
    save_cell(result, tensors, file)


def _gate_usage(recipe: Recipe, run: RunDirectory) -> dict[str, dict[str, float]]:
    described = [describe_path(run.path(name)) for name in run.finished(recipe)]
    if not any(path["parameters"]["gates"] for path in described):
        return {}
    paths = inspect_run(run.root)["paths"]
    return {
        name: {expert: round(weight, 4) for expert, weight in path["gate_usage"].items()}
        for name, path in paths.items()
        if path["gate_usage"]
    }


def _stop_with_parent() -> None:
    """Save and stop when the grid is killed, as if it had asked for it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
