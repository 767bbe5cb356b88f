"""Run the cells of a grid one after another; what is done is skipped, the rest goes on."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pathweave.config import Recipe, unknown
from pathweave.errors import PathWeaveError, RecipeError, RunError
from pathweave.files import cache_home, sole_writer, write_json
from pathweave.grid.cell import load_cell
from pathweave.grid.declaration import Cell, Grid, recipe_hash
from pathweave.grid.sessions import current, sessions
from pathweave.grid.shared import FirstStage, first_stage, start_from
from pathweave.grid.worker import Job, work
from pathweave.run_files import RunDirectory
from pathweave.train.evolve import EXIT_INTERRUPTED
from pathweave.train.log import RunLog
from pathweave.train.stop import Interrupted, StopRequest

ABOUT = "grid.json"
_POLL = 0.25  # seconds between two looks at a cell

# A server that has imported everything once, also what draws the picture of a run where that is
# installed: cells start in milliseconds, each with a memory of its own.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pathweave.grid.worker", "matplotlib.backends.backend_agg"])


@dataclass(frozen=True)
class State:
    """How far a cell has come.

    Attributes:
        cell: The cell.
        finished: Stages learnt.
        is_done: Whether its result is written.
        seconds: What it has cost so far; 0 for a cell that was never begun.
    """

    cell: Cell
    finished: int
    is_done: bool
    seconds: float

    def __str__(self) -> str:
        if self.is_done:
            return f"done ({self.seconds / 60:.1f} min)"
        total = len(self.cell.recipe.curriculum)
        return f"{self.finished} of {total} stages" if self.finished else "to do"


@dataclass
class Outcome:
    """What came of running a grid.

    Attributes:
        done: Cells whose result is there.
        failed: Messages by the name of the cell.
    """

    done: list[str]
    failed: dict[str, str] = field(default_factory=dict)


def select(grid: Grid, only: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of some methods, or all.

    Raises:
        RecipeError: If there is no such method.
    """
    for method in only:
        if method not in grid.declared.methods:
            raise RecipeError(unknown("--only", method, list(grid.declared.methods)))
    return [cell for cell in grid.cells if not only or cell.method in only]


def state_of(cell: Cell, out: Path) -> State:
    """Look at how far a cell has come.

    Raises:
        RunError: If its result is damaged, or of another recipe than the grid's.
    """
    file = cell.result(out)
    run = RunDirectory(cell.directory(out))
    if not file.exists():
        seconds = sessions(run.log).seconds if run.log.exists() else 0.0
        return State(cell, len(run.finished(cell.recipe)), False, seconds)
    result = load_cell(file)
    if result.recipe_hash != (expected := recipe_hash(cell.recipe)):
        raise RunError(
            f"{file} must be of the grid's recipe ({expected[:12]}), got another "
            f"({result.recipe_hash[:12]}); restore the recipe, choose another --out, or remove "
            f"the file and {run.root} to run the cell anew"
        )
    return State(cell, len(cell.recipe.curriculum), True, result.seconds)


class GridRun:
    """The cells of a grid, run in a directory.

    Args:
        grid: The grid.
        out: Its directory.
        only: Run the cells of these methods alone; none is all.
        quiet: Show nothing.
    """

    def __init__(
        self, grid: Grid, out: Path, only: Sequence[str] = (), quiet: bool = False
    ) -> None:
        self.grid = grid
        self.out = out
        self.cells = select(grid, only)
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet,
            transient=True,
        )
        self._costs: list[float] = []
        self._broken: dict[Path, str] = {}

    def __call__(self) -> Outcome:
        """Run what is not done.

        Raises:
            Interrupted: After a request to stop; running again goes on from there.
            BusyError: If another process runs a grid in the directory.
            RunError: If there is a result that is damaged or of another recipe.
            DiskError: If the directory cannot be written.
        """
        with sole_writer(self.out):
            states = [state_of(cell, self.out) for cell in self.cells]
            write_json(self.out / "results" / ABOUT, self.grid.about())
            self._log = RunLog(self.out / "log.jsonl")
            todo = [state.cell for state in states if not state.is_done]
            self._costs = [state.seconds for state in states if state.is_done]
            outcome = Outcome([s.cell.name for s in states if s.is_done])
            done = len(outcome.done)
            self._log.event("grid", cells=len(states), done=done)
            name = self.grid.declared.name
            self._task = self._progress.add_task(name, total=len(states), completed=done, note="")
            self._progress.start()
            try:
                with StopRequest() as self._stop:
                    for position, cell in enumerate(todo):
                        self._left = len(todo) - position
                        self._take(cell, outcome)
                        self._progress.update(self._task, advance=1)
            finally:
                # Progress.stop() would add an empty line where the output is no terminal.
                self._progress.live.stop()
        return outcome

    def _take(self, cell: Cell, outcome: Outcome) -> None:
        """Run one cell and record what came of it."""
        self._log.event("cell", cell=cell.name)
        try:
            self._run(cell)
        except PathWeaveError as error:
            outcome.failed[cell.name] = str(error)
            self._log.event("failed", cell=cell.name, error=str(error))
            self._progress.print(f"[red]failed[/] {cell.name}: {escape(str(error))}")
            return
        result = load_cell(cell.result(self.out))
        self._costs.append(result.seconds)
        outcome.done.append(cell.name)
        self._log.event("done", cell=cell.name, seconds=result.seconds)
        left = _duration(self._mean_cost() * (self._left - 1))
        self._progress.print(f"done {cell.name} in {_duration(result.seconds)}; {left} left")

    def _run(self, cell: Cell) -> None:
        directory = cell.directory(self.out)
        stage = first_stage(cell.recipe, self.out)
        if stage is not None and not (directory / "recipe.json").exists():
            self._share(stage, directory)
        self._work(cell.name, cell.recipe, directory, cell)

    def _share(self, stage: FirstStage, directory: Path) -> None:
        """Give a cell the first stage, which is trained now if it is not there yet."""
        if stage.directory in self._broken:
            raise RunError(self._broken[stage.directory])
        if not stage.is_done:
            name = f"shared {stage.directory.name}"
            try:
                self._work(name, stage.recipe, stage.directory, None)
            except RunError as error:
                self._broken[stage.directory] = str(error)
                raise
        spent = sessions(RunDirectory(stage.directory).log)
        start_from(stage, directory, spent.seconds, spent.peak_memory_bytes)

    def _work(self, name: str, recipe: Recipe, directory: Path, cell: Cell | None) -> None:
        """Run a job in a process of its own and wait for its end.

        Raises:
            Interrupted: After a request to stop.
            RunError: If the process failed.
        """
        if self._stop.requested:
            raise Interrupted(f"stopped before {name}")
        directory.mkdir(parents=True, exist_ok=True)
        result = None if cell is None else cell.result(self.out)
        environment = {**os.environ, "PATHWEAVE_HOME": str(cache_home())}
        job = Job(recipe, directory, cell, result, torch.get_num_threads(), environment)
        process = _processes.Process(target=work, args=(job,))
        process.start()
        try:
            self._wait(process, name, recipe, directory)
        finally:
            if process.is_alive():
                process.kill()
            process.join()
        if self._stop.requested and process.exitcode == EXIT_INTERRUPTED:
            self._log.event("stopped", cell=name)
            raise Interrupted(f"stopped in {name}")
        if process.exitcode != 0:
            raise RunError(_reason(process.exitcode or 0, directory))

    def _wait(self, process: BaseProcess, name: str, recipe: Recipe, directory: Path) -> None:
        steps = {stage: recipe.training_of(stage).steps for stage in recipe.curriculum}
        began, is_told = time.perf_counter(), False
        while process.is_alive():
            process.join(_POLL)
            if self._stop.requested and not is_told and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
                is_told = True
            doing = "saving and stopping" if is_told else current(directory / "log.jsonl", steps)
            note = f"{name}: {doing}"
            if self._costs:
                left = self._mean_cost() * self._left - (time.perf_counter() - began)
                note += f"; {_duration(max(0.0, left))} left"
            self._progress.update(self._task, note=note)

    def _mean_cost(self) -> float:
        return sum(self._costs) / len(self._costs)


def _reason(exit_code: int, directory: Path) -> str:
    """Return why a process failed, from the end of what it printed."""
    file = directory / "output.txt"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; most often memory has run out" if -exit_code == signal.SIGKILL else ""
        return f"the process was ended by {name}{hint}; see {file}"
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:] or ["no message"]
    return f"{errors[-1].removeprefix('error: ')} (see {file})"


def _duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> _duration(50.0), _duration(400.0), _duration(9000.0)
        ('50 s', '6.7 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
