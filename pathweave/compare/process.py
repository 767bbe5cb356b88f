"""A job in a process of its own, seen from the grid: begun, looked at, stopped, its end."""

import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess

from pathweave.compare.sessions import current
from pathweave.compare.worker import Job, work
from pathweave.errors import RunError
from pathweave.train.evolve import EXIT_INTERRUPTED

# A server that has imported everything once, also what draws the picture of a run where that is
# installed: cells start in milliseconds, each with a memory of its own.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pathweave.compare.worker", "matplotlib.backends.backend_agg"])


class Running:
    """A job that has been begun.

    Args:
        name: What it is called in messages.
        job: The job.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.job = job
        self._is_told = False
        self._began = time.perf_counter()
        self._process: BaseProcess = _processes.Process(target=work, args=(job,))
        self._process.start()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return not self._process.is_alive()

    @property
    def was_stopped(self) -> bool:
        """Whether it ended because it was asked to, with its state saved."""
        return self._is_told and self._process.exitcode == EXIT_INTERRUPTED

    @property
    def seconds(self) -> float:
        """Wall-clock time since it was begun."""
        return time.perf_counter() - self._began

    @property
    def sentinel(self) -> int:
        """What ``multiprocessing.connection.wait`` can wait for."""
        return self._process.sentinel

    def stop(self) -> None:
        """Ask it once to save and end."""
        if not self._is_told and self._process.pid is not None and not self.is_over:
            os.kill(self._process.pid, signal.SIGINT)
            self._is_told = True

    def kill(self) -> None:
        """End it at once; what came since its last save is lost."""
        self._process.kill()
        self._process.join()

    def doing(self) -> str:
        """Return in a few words what it is doing."""
        if self._is_told:
            return "saving and stopping"
        recipe = self.job.recipe
        steps = {stage: recipe.training_of(stage).steps for stage in recipe.curriculum}
        return current(self.job.directory / "log.jsonl", steps)

    def check(self) -> None:
        """Look at how the process ended.

        Raises:
            RunError: If it failed; the message gives the end of what it printed.
        """
        if self._process.exitcode != 0:
            raise RunError(self._reason(self._process.exitcode or 0))

    def _reason(self, exit_code: int) -> str:
        file = self.job.directory / "output.txt"
        if exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = "; most often memory has run out" if -exit_code == signal.SIGKILL else ""
            return f"the process was ended by {name}{hint}; see {file}"
        lines = [
            line
            for line in file.read_text(errors="replace", encoding="utf-8").splitlines()
            if line.strip()
        ]
        errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
        message = errors[-1] if errors else "no message"
        return f"{message.removeprefix('error: ')} (see {file})"
