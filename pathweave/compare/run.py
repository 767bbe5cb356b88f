"""Run the cells of a grid, some side by side; what is done is skipped, the rest goes on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pathweave.compare.cell import load_cell
from pathweave.compare.declaration import Cell, Grid, recipe_hash
from pathweave.compare.process import Running
from pathweave.compare.sessions import sessions
from pathweave.compare.shared import first_stage, start_from
from pathweave.compare.worker import Job
from pathweave.errors import PathWeaveError, RecipeError, RunError
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import cache_home, sole_writer, write_json
from pathweave.train.log import RunLog
from pathweave.train.stop import Interrupted, StopRequest
from pathweave.validation import unknown

ABOUT = "grid.json"
_POLL = 0.25  # seconds between two looks at a cell


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
            return f"done, {_duration(self.seconds)}"
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
        ManifestError: If a manifest of its recipe cannot be read.
    """
    # Also of cells that are not begun: a missing manifest is told of before the first one trains.
    expected = recipe_hash(cell.recipe)
    file = cell.result(out)
    run = RunDirectory(cell.directory(out))
    if not file.exists():
        seconds = sessions(run.log).seconds if run.log.exists() else 0.0
        return State(cell, len(run.finished(cell.recipe)), False, seconds)
    result = load_cell(file)
    if result.recipe_hash != expected:
        raise RunError(
            f"{file} must be of the grid's recipe ({expected[:12]}), got another "
            f"({result.recipe_hash[:12]}); restore the recipe, choose another --out, or remove "
            f"the file and {run.root} to run the cell anew"
        )
    return State(cell, len(cell.recipe.curriculum), True, result.seconds)


def state_table(states: Sequence[State]) -> Table:
    """Return how far the cells are: a row for each method and order, a column for each seed."""
    seeds = sorted({state.cell.seed for state in states})
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for state in states:
        rows.setdefault((state.cell.order, state.cell.method), {})[state.cell.seed] = str(state)
    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in ("order", "method", *(f"seed {seed}" for seed in seeds)):
        table.add_column(heading, no_wrap=True)
    for place, found in rows.items():
        table.add_row(*place, *(found.get(seed, "") for seed in seeds))
    return table


class GridRun:
    """The cells of a grid, run in a directory.

    Args:
        grid: The grid.
        out: Its directory.
        only: Run the cells of these methods alone; none is all.
        jobs: Cells that run side by side; they share the threads of this process.
        quiet: Show nothing.
    """

    def __init__(
        self,
        grid: Grid,
        out: Path,
        only: Sequence[str] = (),
        jobs: int = 1,
        quiet: bool = False,
    ) -> None:
        self.grid = grid
        self.out = out
        self.cells = select(grid, only)
        self.jobs = jobs
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
            self._todo = [state.cell for state in states if not state.is_done]
            self._costs = [state.seconds for state in states if state.is_done]
            self._outcome = Outcome([s.cell.name for s in states if s.is_done])
            self._running: list[Running] = []
            done = len(self._outcome.done)
            self._log.event("grid", cells=len(states), done=done)
            name = self.grid.declared.name
            self._task = self._progress.add_task(name, total=len(states), completed=done, note="")
            self._progress.start()
            try:
                with StopRequest() as stop:
                    self._run(stop)
            finally:
                for running in self._running:
                    running.kill()
                # Progress.stop() would add an empty line where the output is no terminal.
                self._progress.live.stop()
        return self._outcome

    def _run(self, stop: StopRequest) -> None:
        """Begin jobs as others end, until there is none left or a stop is asked for."""
        stopped: list[str] = []
        while True:
            while not stop.requested and len(self._running) < self.jobs and self._begin_next():
                pass
            if not self._running:
                break
            wait([running.sentinel for running in self._running], _POLL)
            if stop.requested:
                for running in self._running:
                    running.stop()
            for running in [running for running in self._running if running.is_over]:
                self._running.remove(running)
                if running.was_stopped:
                    self._log.event("stopped", cell=running.name)
                    stopped.append(running.name)
                else:
                    self._end(running)
            self._show()
        if stop.requested and (stopped or self._todo):
            where = f"in {', '.join(stopped)}" if stopped else f"before {self._todo[0].name}"
            raise Interrupted(f"stopped {where}")

    def _begin_next(self) -> bool:
        """Begin what can run beside the rest: the next cell, or the first stage it needs.

        Returns:
            Whether something was begun or given up.
        """
        for cell in self._todo:
            directory = cell.directory(self.out)
            try:
                stage = first_stage(cell.recipe, self.out)
                if stage is not None and not (directory / "recipe.json").exists():
                    if stage.directory in self._broken:
                        raise RunError(self._broken[stage.directory])
                    if any(running.job.directory == stage.directory for running in self._running):
                        continue
                    if not stage.is_done:
                        self._log.event("first_stage", directory=stage.directory.name)
                        self._begin(stage.name, stage.recipe, stage.directory, None)
                        return True
                    spent = sessions(RunDirectory(stage.directory).log)
                    start_from(stage, directory, spent.seconds, spent.peak_memory_bytes)
                self._log.event("cell", cell=cell.name)
                self._begin(cell.name, cell.recipe, directory, cell)
            except PathWeaveError as error:
                self._failed(cell, error)
            self._todo.remove(cell)
            return True
        return False

    def _begin(self, name: str, recipe: Recipe, directory: Path, cell: Cell | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        result = None if cell is None else cell.result(self.out)
        environment = {**os.environ, "PATHWEAVE_HOME": str(cache_home())}
        num_threads = max(1, torch.get_num_threads() // self.jobs)
        job = Job(recipe, directory, cell, result, num_threads, environment)
        self._running.append(Running(name, job))

    def _end(self, running: Running) -> None:
        """Record what came of a job."""
        cell = running.job.cell
        try:
            running.check()
        except RunError as error:
            if cell is None:  # every cell that needs this stage fails with its message
                self._broken[running.job.directory] = str(error)
            else:
                self._failed(cell, error)
            return
        if cell is None:
            return
        result = load_cell(cell.result(self.out))
        self._costs.append(result.seconds)
        self._outcome.done.append(cell.name)
        self._log.event("done", cell=cell.name, seconds=result.seconds)
        message = f"done {cell.name} in {_duration(result.seconds)}; {_duration(self._left())} left"
        self._progress.print(message)
        self._progress.update(self._task, advance=1)

    def _failed(self, cell: Cell, error: PathWeaveError) -> None:
        self._outcome.failed[cell.name] = str(error)
        self._log.event("failed", cell=cell.name, error=str(error))
        self._progress.print(f"[red]failed[/] {cell.name}: {escape(str(error))}")
        self._progress.update(self._task, advance=1)

    def _left(self) -> float:
        """Return the seconds that what is left will take."""
        mean = sum(self._costs) / len(self._costs)
        begun = sum(min(mean, r.seconds) for r in self._running if r.job.cell is not None)
        cells = len(self._todo) + sum(r.job.cell is not None for r in self._running)
        return (mean * cells - begun) / self.jobs

    def _show(self) -> None:
        notes = [f"{running.name}: {running.doing()}" for running in self._running]
        if self._costs:
            notes.append(f"{_duration(self._left())} left")
        self._progress.update(self._task, note="; ".join(notes))


def _duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> _duration(50.0), _duration(400.0), _duration(9000.0)
        ('50 s', '6.7 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
