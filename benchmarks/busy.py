"""How the threads of matrix products should wait: idle machine, a busy neighbour, two jobs.

    python benchmarks/busy.py

Products on several threads meet at barriers. While a thread waits there it may spin, which takes
a core from whoever else could compute, or sleep. Three settings are compared in each situation:

    default    what OpenMP does by itself: spin for a while, then sleep
    short      GOMP_SPINCOUNT=1000: spin for some microseconds, then sleep
    passive    OMP_WAIT_POLICY=PASSIVE: sleep at once; what the command line sets on a busy machine

Every setting has processes of its own, as it is read when torch is imported. They are kept and take
turns, so each round measures all settings within seconds of each other. Figures are medians over
rounds; ratios are medians of the ratio to ``default`` within a round. The work is a row of products
and a training step of the small base (fetched if it is not here).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "short": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BATCH, TOKENS, WIDTH, QUERIES = 8, 49, 1280, 4
# Situation: jobs at once, whether each has all cores or its share, and busy neighbours.
SITUATIONS = {
    "alone": (1, False, 0),
    "beside a busy process": (1, False, 1),
    "two jobs, a share of the cores each": (2, True, 0),
    "two jobs, all cores each": (2, False, 0),
}


def work() -> None:
    """Answer orders on standard input, such as ``step 2 5.0``: what, threads, seconds."""
    import torch
    from torch import nn

    from pathweave.bases.mini import load_mini
    from pathweave.model.paths import PathSpec
    from pathweave.model.pathweave import PathWeave
    from pathweave.model.prompt import Medium

    torch.manual_seed(0)
    model = PathWeave(load_mini(), {"sense": "sense:"})
    path = model.paths.expand(PathSpec("sense", WIDTH, QUERIES))
    optimizer = torch.optim.AdamW(path.parameters(), lr=1e-4)
    media = [Medium("sense", torch.randn(1, TOKENS, WIDTH)) for _ in range(BATCH)]
    prompts = [[medium, "What is this?"] for medium in media]
    x, layer = torch.randn(256, 512), nn.Linear(512, 512)

    def step() -> int:
        loss, _ = model(prompts, ["a red apple"] * BATCH)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return BATCH

    @torch.no_grad()
    def products() -> int:
        y = x
        for _ in range(100):
            y = torch.tanh(layer(y))
        return 1

    tasks = {"step": step, "products": products}
    print("ready", flush=True)
    for line in sys.stdin:
        what, threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        tasks[what]()
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < float(seconds):
            count += tasks[what]()
        print(count / elapsed, flush=True)


def start(setting: str) -> "subprocess.Popen[str]":
    """Return a process with a setting that waits for orders."""
    environment = {k: v for k, v in os.environ.items() if k not in WAITING} | SETTINGS[setting]
    process = subprocess.Popen(
        [sys.executable, __file__, "--work"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("a worker must start, got an error; see above")
    return process


def rate(workers: list["subprocess.Popen[str]"], what: str, threads: int, seconds: float) -> float:
    """Return how often a second some workers, at once, do their work together."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{what} {threads} {seconds}\n")
        worker.stdin.flush()
    return sum(float(worker.stdout.readline()) for worker in workers if worker.stdout is not None)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile, as another program would."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(rounds: int, seconds: float) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return rates by work, situation and setting, one a round."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    with ExitStack() as stack:
        workers = {s: [stack.enter_context(start(s)) for _ in range(2)] for s in SETTINGS}
        for pair in workers.values():
            for worker in pair:
                stack.callback(worker.kill)
        rates: dict[str, dict[str, dict[str, list[float]]]] = {
            what: {situation: {s: [] for s in SETTINGS} for situation in SITUATIONS}
            for what in ("products", "step")
        }
        for what, situations in rates.items():
            for situation, found in situations.items():
                jobs, shared, neighbours = SITUATIONS[situation]
                threads = max(1, cores // jobs) if shared else cores
                with busy(neighbours):
                    for _ in range(rounds):
                        for setting, pair in workers.items():
                            found[setting].append(rate(pair[:jobs], what, threads, seconds))
    return rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    rates = measure(options.rounds, options.seconds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "rates": rates}))
        return
    print(f"{machine}; {options.rounds} rounds of {options.seconds:g} s")
    units = {"products": "rows of products a second", "step": "training samples a second"}
    for what, situations in rates.items():
        print(f"\n{units[what]:37}" + "".join(f"{setting:>16}" for setting in SETTINGS))
        for situation, found in situations.items():
            cells = ""
            for values in found.values():
                pairs = zip(values, found["default"], strict=True)
                ratio = statistics.median(value / base for value, base in pairs)
                cells += f"{statistics.median(values):9.1f} ({ratio:.2f})"
            print(f"  {situation:35}{cells}")


if __name__ == "__main__":
    main()
