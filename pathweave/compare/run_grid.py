"""Running the cells of a grid, some side by side; what is done is skipped, the rest goes on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.markup import escape

from pathweave.compare.cell import load_result, record
from pathweave.compare.grid import ABOUT, Cell, Grid, recipe_hash
from pathweave.compare.process import RunningCell
from pathweave.compare.sessions import sessions
from pathweave.compare.shared import first_stage, start_from
from pathweave.compare.tables import ReportTable
from pathweave.display import Display
from pathweave.errors import PathWeaveError, RecipeError, RunError
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import sole_writer, write_json
from pathweave.train.log import RunLog
from pathweave.train.stop import Interrupted, StopRequest
from pathweave.train.trackers import check_trackers
from pathweave.validation import unknown

_POLL = 0.1  # seconds between two looks at the cells

# From the recipe of a cell and the grid's directory to what cells share: its recipe and directory.
Shared = Callable[[Recipe, Path], tuple[Recipe, Path] | None]


@dataclass(frozen=True)
class CellState:
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


@dataclass
class GridOutcome:
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


def state_of(cell: Cell, out: Path) -> CellState:
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
        seconds = sessions(run.log)["seconds"] if run.log.exists() else 0.0
        return CellState(cell, len(run.finished(cell.recipe)), False, seconds)
    result = load_result(file)
    if result.recipe_hash != expected:
        raise RunError(
            f"{file} must be of the grid's recipe ({expected[:12]}), got another "
            f"({result.recipe_hash[:12]}); restore the recipe, choose another --out, or remove "
            f"the file and {run.root} to run the cell anew"
        )
    return CellState(cell, len(cell.recipe.curriculum), True, result.seconds)


def state_table(states: Sequence[CellState]) -> ReportTable:
    """Return how far the cells are: a row for each method and order, a column for each seed."""
    seeds = sorted({state.cell.seed for state in states})
    rows: dict[str, dict[int, str]] = {}
    for state in states:
        cell, stages = state.cell, len(state.cell.recipe.curriculum)
        shown = f"{state.finished} of {stages} stages" if state.finished else "to do"
        shown = f"done, {_duration(state.seconds)}" if state.is_done else shown
        rows.setdefault(f"{cell.order}, {cell.method}", {})[cell.seed] = shown
    cells = [[place, *(found.get(seed, "") for seed in seeds)] for place, found in rows.items()]
    return ReportTable("Cells", ["order, method", *(f"seed {seed}" for seed in seeds)], cells)


def run_grid(
    grid: Grid,
    out: Path,
    only: Sequence[str] = (),
    jobs: int = 1,
    quiet: bool = False,
    shared: Shared = first_stage,
    track: Sequence[str] = (),
) -> GridOutcome:
    """Run the cells of a grid that are not done yet.

    Args:
        grid: The grid.
        out: Its directory.
        only: Run the cells of these methods alone; none is all.
        jobs: Cells that run side by side; they share the threads of this process.
        quiet: Show nothing.
        shared: Gives the stages that a cell begins with and shares with others, learnt once.
        track: Trackers of every run, of ``TRACKERS``.

    Raises:
        RecipeError: If there is no method of a name in ``only``, or no such tracker.
        Interrupted: After a request to stop; running again goes on from there.
        BusyError: If another process runs a grid in the directory.
        RunError: If there is a result that is damaged or of another recipe.
        DiskError: If the directory cannot be written.
    """
    check_trackers(track)
    cells = select(grid, only)
    with sole_writer(out):
        states = [state_of(cell, out) for cell in cells]
        write_json(out / "results" / ABOUT, grid.about().model_dump())
        return _Schedule(grid.declared.name, out, states, jobs, quiet, shared, track).run()


class _Schedule:
    """The cells of a grid that are to run, and those that do; arguments as of ``run_grid``."""

    def __init__(
        self,
        name: str,
        out: Path,
        states: Sequence[CellState],
        jobs: int,
        quiet: bool,
        shared: Shared,
        track: Sequence[str],
    ) -> None:
        done = [state for state in states if state.is_done]
        self._out, self._jobs, self._shared, self._track = out, jobs, shared, track
        self._threads = max(1, torch.get_num_threads() // jobs)
        self._todo = [state.cell for state in states if not state.is_done]
        self._costs = [state.seconds for state in done]
        self._outcome = GridOutcome([state.cell.name for state in done])
        self._running: list[RunningCell] = []
        self._stopped: list[str] = []
        self._broken: dict[Path, str] = {}  # why shared stages failed
        self._log = RunLog(out / "log.jsonl")
        self._log.event("grid", cells=len(states), done=len(done))
        self._display = Display(quiet)
        self._bar = self._display.bar(name, total=len(states), done=len(done))

    def run(self) -> GridOutcome:
        """Begin cells as others end, until there is none left or a stop is asked for."""
        try:
            with self._display, StopRequest() as stop:
                while self._begin(stop):
                    time.sleep(_POLL)
                    for running in self._running if stop.requested else ():
                        running.stop()
                    for running in [running for running in self._running if running.is_over]:
                        self._running.remove(running)
                        self._end(running)
                    notes = [f"{running.name}: {running.doing()}" for running in self._running]
                    notes += [self._left()] if self._costs else []
                    if notes:
                        self._bar.advance(0, "; ".join(notes))
        finally:
            for running in self._running:
                running.kill()
        if stop.requested and (self._stopped or self._todo):
            stopped = ", ".join(self._stopped)
            where = f"in {stopped}" if stopped else f"before {self._todo[0].name}"
            raise Interrupted(f"stopped {where}")
        return self._outcome

    def _begin(self, stop: StopRequest) -> bool:
        """Begin what can run beside the rest, and return whether anything runs."""
        for cell in [*self._todo]:
            if not stop.requested and len(self._running) < self._jobs:
                self._begin_cell(cell)
        return bool(self._running)

    def _begin_cell(self, cell: Cell) -> None:
        """Begin a cell, or the shared stages that it waits for, unless they run already."""
        directory = cell.directory(self._out)
        try:
            shared = self._shared(cell.recipe, self._out)
            if shared is not None and not RunDirectory(directory).recipe_file.exists():
                recipe, stage = shared
                if stage in self._broken:
                    raise RunError(self._broken[stage])
                if any(running.directory == stage for running in self._running):
                    return
                if not RunDirectory(stage).results.is_file():
                    self._log.event("first_stage", directory=stage.name)
                    name = f"shared {stage.name}"
                    self._running.append(self._running_cell(name, recipe, stage))
                    return
                start_from(stage, directory)
            self._log.event("cell", cell=cell.name)
            self._running.append(self._running_cell(cell.name, cell.recipe, directory, cell))
        except PathWeaveError as error:
            self._failed(cell, error)
        self._todo.remove(cell)

    def _running_cell(
        self, name: str, recipe: Recipe, directory: Path, cell: Cell | None = None
    ) -> RunningCell:
        return RunningCell(name, recipe, directory, self._threads, cell, self._track)

    def _end(self, running: RunningCell) -> None:
        """Record what came of a run that has ended."""
        cell = running.cell
        try:
            if not running.finish():
                self._log.event("stopped", cell=running.name)
                self._stopped.append(running.name)
                return
            if cell is None:
                return
            seconds = record(cell, self._out).seconds
        except PathWeaveError as error:
            if cell is None:  # every cell that needs this stage fails with its message
                self._broken[running.directory] = str(error)
            else:
                self._failed(cell, error)
            return
        self._costs.append(seconds)
        self._outcome.done.append(cell.name)
        self._log.event("done", cell=cell.name, seconds=seconds)
        self._display.say(f"done {cell.name} in {_duration(seconds)}; {self._left()}")
        self._bar.advance(1, " ")

    def _failed(self, cell: Cell, error: PathWeaveError) -> None:
        self._outcome.failed[cell.name] = str(error)
        self._log.event("failed", cell=cell.name, error=str(error))
        self._display.say(f"[red]failed[/] {cell.name}: {escape(str(error))}")
        self._bar.advance(1, " ")

    def _left(self) -> str:
        """Return how long what is left will take; a cell must have ended."""
        mean = sum(self._costs) / len(self._costs)
        running = [min(mean, run.seconds) for run in self._running if run.cell is not None]
        seconds = mean * (len(self._todo) + len(running)) - sum(running)
        return f"{_duration(seconds / self._jobs)} left"


def _duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> _duration(50.0), _duration(400.0), _duration(9000.0)
        ('50 s', '6.7 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
