"""How threads of matrix products wait for each other, chosen before torch is imported.

Where they spin, they are back at work at once; where they sleep, waking takes its time, but their
core is free for others. On an idle machine spinning trains nearly twice as fast; beside another
busy program sleeping does (``python -m benchmarks.busy``).
"""

import os
from collections.abc import MutableMapping

# Whoever sets one of these has chosen how threads wait (OpenMP of GNU, or of Intel and LLVM).
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SECONDS = 0.1  # over which the use of the cores is measured


def choose_waiting(
    environment: MutableMapping[str, str], free: float | None = None, cores: int | None = None
) -> None:
    """Let threads sleep while they wait if they have no core each, unless the user has chosen.

    OpenMP reads the variable when torch is imported, so this comes first.

    Args:
        environment: Where the variable is set.
        free: Cores that nobody uses; measured where not given.
        cores: Cores that this process may use; asked where not given.
    """
    if any(name in environment for name in WAITING):
        return
    allowed = _allowed_cores()
    cores = cores or len(allowed)
    named = environment.get("OMP_NUM_THREADS", "")
    threads = min(int(named), cores) if named.isdigit() and int(named) else cores
    if (_free(allowed) if free is None else free) < threads - 0.5:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def _allowed_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _free(allowed: list[int]) -> float:
    """Return how many of the allowed cores are idle; all of them where that cannot be told."""
    import psutil

    used = psutil.cpu_percent(SECONDS, percpu=True)
    return sum(1 - used[core] / 100 if core < len(used) else 1.0 for core in allowed)
