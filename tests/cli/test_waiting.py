import os
import subprocess
import sys

import pytest

from pathweave.cli.waiting import WAITING, choose_waiting

BUSY = "while True: pass"


@pytest.mark.parametrize(
    ("threads", "free", "sleeps"),
    [
        ("", 2.0, False),  # an idle machine
        ("", 1.6, False),  # others use a little
        ("", 1.4, True),
        ("", 0.0, True),
        ("1", 1.0, False),  # a core for the only thread, as cells side by side have
        ("1", 0.3, True),
        ("8", 2.0, False),  # no more than the cores there are
        ("many", 1.0, True),  # what OpenMP does not understand it leaves out
    ],
)
def test_threads_without_a_core_each_sleep_while_they_wait(threads, free, sleeps):
    environment = {"OMP_NUM_THREADS": threads}
    choose_waiting(environment, free, cores=2)
    assert environment.get("OMP_WAIT_POLICY") == ("PASSIVE" if sleeps else None)


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_has_chosen_stays(name):
    environment = {name: "7"}
    choose_waiting(environment, free=0.0, cores=2)
    assert environment == {name: "7"}


def test_openmp_is_told_so_on_a_busy_machine():
    """OpenMP itself says what it was told when the program imported torch."""
    program = [sys.executable, "-m", "pathweave.cli", "ask", "none", "Hello"]
    environment = {k: v for k, v in os.environ.items() if k not in (*WAITING, "OMP_NUM_THREADS")}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        told = next((line for line in process.stderr if "OMP_WAIT_POLICY" in line), "")
    finally:
        for other in others:
            other.kill()
            other.wait()
    process.communicate()
    assert process.returncode == 2  # there is no such run; torch has been imported by then
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
