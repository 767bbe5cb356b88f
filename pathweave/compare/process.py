"""Process of a cell: ``pathweave evolve``, begun, looked at, stopped, its end.

Its memory is its own, and a crash ends it alone.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pathweave.compare.grid import Cell
from pathweave.compare.sessions import current
from pathweave.errors import RunError
from pathweave.recipe.reading import dump_recipe
from pathweave.recipe.schema import Recipe
from pathweave.storage.atomic import disk_errors, write_atomic
from pathweave.train.evolve import EXIT_INTERRUPTED

# What it is given in its directory, and where it prints.
GIVEN, OUTPUT = "recipe.given.json", "output.txt"


class RunningCell:
    """A run of a grid that has been begun: a cell, or a first stage that cells share.

    Args:
        name: What it is called in messages.
        recipe: The run.
        directory: Its directory.
        num_threads: Threads of one operation.
        cell: The cell that it is; None for a first stage.
        track: Trackers of the run.

    Raises:
        DiskError: If the directory cannot be written.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        directory: Path,
        num_threads: int,
        cell: Cell | None = None,
        track: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.cell = cell
        self.directory = directory
        self._steps = {stage: recipe.training_of(stage).steps for stage in recipe.curriculum}
        self._is_told = False
        self._began = time.perf_counter()
        write_atomic(directory / GIVEN, dump_recipe(recipe).encode())
        words = [sys.executable, "-m", "pathweave.cli", "evolve", str(directory / GIVEN)]
        words += ["--out", str(directory), "--json", "--stop-with-parent"]
        words += [word for name in track for word in ("--track", name)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
        with disk_errors(directory), (directory / OUTPUT).open("wb") as output:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,  # ends with this process, or when it is to stop
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **threads},
                process_group=0,  # Ctrl-C reaches the grid alone, which passes it on once
            )

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        """Wall-clock time since it was begun."""
        return time.perf_counter() - self._began

    def stop(self) -> None:
        """Ask it to save and end: it does so when its standard input ends, on every system."""
        if self._process.stdin is not None and not self._is_told and not self.is_over:
            self._process.stdin.close()
            self._is_told = True

    def kill(self) -> None:
        """End it at once; what came since its last save is lost."""
        self._process.kill()
        self._process.communicate()

    def doing(self) -> str:
        """Return in a few words what it is doing."""
        if self._is_told:
            return "saving and stopping"
        return current(self.directory / "log.jsonl", self._steps)

    def finish(self) -> bool:
        """Wait for the end, and return whether it has done all; not so if it was asked to stop.

        Raises:
            RunError: If it failed; the message gives the end of what it printed.
        """
        self._process.communicate()
        code, file = self._process.returncode, self.directory / OUTPUT
        if self._is_told and code in (EXIT_INTERRUPTED, -signal.SIGINT):
            return False
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; most often memory has run out" if name == "SIGKILL" else ""
            raise RunError(f"the process was ended by {name}{hint}; see {file}")
        if code > 0:
            text = file.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("error: ")] or lines
            message = errors[-1] if errors else "no message"
            raise RunError(f"{message.removeprefix('error: ')} (see {file})")
        return True
