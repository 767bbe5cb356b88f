"""``evolve`` from recipe to report, on one process or many."""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from accelerate import Accelerator
from rich.console import Console

from pathweave.display import Display
from pathweave.errors import PathWeaveError
from pathweave.evaluate.plot import plot
from pathweave.evaluate.report import tables
from pathweave.evaluate.results import Results
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import sole_writer
from pathweave.train.curriculum import Curriculum
from pathweave.train.log import RunLog
from pathweave.train.processes import lost_processes
from pathweave.train.run_results import peak_memory
from pathweave.train.stop import Interrupted
from pathweave.train.trackers import check_trackers, stop_trackers, tracked

EXIT_INTERRUPTED = 130


def evolve_recipe(
    recipe: Recipe, out: Path, quiet: bool = False, track: Sequence[str] = ()
) -> Results | None:
    """Run a recipe in a directory, resuming what is there, and show the report.

    Args:
        recipe: The run.
        out: Its directory.
        quiet: Show neither progress nor report.
        track: Trackers that are given the numbers too, of ``TRACKERS``.

    Returns:
        The results, on the main process.

    Raises:
        BusyError: If another run writes to the directory.
        PathWeaveError: For every other error that a user can cause.
    """
    check_trackers(track)
    accelerator = Accelerator(**tracked(track, out))
    is_main = accelerator.is_main_process
    run, began = RunDirectory(out), time.perf_counter()
    with (
        sole_writer(out) if is_main else nullcontext(),
        Display(quiet=quiet or not is_main) as display,
    ):
        try:
            with lost_processes():
                results = Curriculum(recipe, out, accelerator, display)()
        except Interrupted as stop:
            display.say(f"[yellow]{stop}; run the same command again to go on[/]")
            sys.exit(EXIT_INTERRUPTED)
        finally:
            stop_trackers(accelerator)
            # However the session ends; but a recipe that was refused has left no run.
            if is_main and run.recipe_file.exists():
                seconds = round(time.perf_counter() - began, 1)
                RunLog(run.log).event("session", seconds=seconds, peak_memory_bytes=peak_memory())
    if not is_main:
        return None
    try:
        plot(results, run.picture)
    except PathWeaveError as error:
        display.console.print(f"no picture: {error}")
    if not quiet:
        show(results, out)
    return results


def show(results: Results, out: Path) -> None:
    """Print the tables of a run and what to try next."""
    console = Console()
    for table in tables(results):
        console.print(table, crop=False)
    run, newest = RunDirectory(out), results.curriculum[-1]
    recipe = run.recipe()
    options = [f"--{name.replace('_', '-')} FILE" for name in recipe.read_by(newest)]
    if recipe.modalities[newest].reads:
        options.insert(0, f"--path {newest}")
    # A command that is cut in two cannot be copied.
    console.print(f"JSON: {run.results}   picture: {run.picture}   log: {run.log}", soft_wrap=True)
    console.print(
        f"Try next:\n  pathweave ask {out} {' '.join(options)} 'What is this?'\n"
        f"  pathweave inspect {out}\n  pathweave verify {out}",
        highlight=False,
        soft_wrap=True,
    )
