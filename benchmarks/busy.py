"""How the threads of matrix products should wait: idle machine, a busy neighbour, two jobs.

    python -m benchmarks.busy [--small] [--rounds N] [--seconds S] [--out DIR]

Products on several threads meet at barriers. While a thread waits there it may spin, which takes
a core from whoever else could compute, or sleep. Three settings are compared in each situation:

    default    what OpenMP does by itself: spin for a while, then sleep
    short      GOMP_SPINCOUNT=1000: spin for some microseconds, then sleep
    passive    OMP_WAIT_POLICY=PASSIVE: sleep at once; what the command line sets on a busy machine

Every setting has processes of its own, as it is read when torch is imported. They are kept and take
turns, so each round measures all settings within seconds of each other. A figure is the ratio of
rates to ``default``; its note has the median rate. The work is a row of products and a training
step of the small base (fetched if it is not here).
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from benchmarks.report import Figure, Report, options, ratio
from pathweave.bases.mini import load_mini
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "short": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BATCH, TOKENS, WIDTH, QUERIES = 8, 49, 1280, 4
UNITS = {"products": "rows a second", "step": "samples a second"}
# Situation: jobs at once, whether each has all cores or its share, and busy neighbours.
SITUATIONS = {
    "alone": (1, False, 0),
    "beside a busy process": (1, False, 1),
    "two jobs, a share of the cores each": (2, True, 0),
    "two jobs, all cores each": (2, False, 0),
}


def work(is_small: bool) -> None:
    """Answer orders on standard input, such as ``step 2 5.0``: what, threads, seconds."""
    torch.manual_seed(0)
    base = importlib.import_module("tests.tiny").tiny_base() if is_small else load_mini()
    model = PathWeave(base, {"sense": "sense:"})
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


def start(setting: str, *words: str) -> "subprocess.Popen[str]":
    """Return a process with a setting that waits for orders when it has said that it is ready."""
    environment = {k: v for k, v in os.environ.items() if k not in WAITING} | SETTINGS[setting]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.busy", "--work", *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


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


def measure(
    workers: Mapping[str, list["subprocess.Popen[str]"]], cores: int, rounds: int, seconds: float
) -> Iterator[Figure]:
    """Yield the figures by work, situation and setting."""
    for what, unit in UNITS.items():
        for situation, (jobs, shared, neighbours) in SITUATIONS.items():
            threads = max(1, cores // jobs) if shared else cores
            rates: dict[str, list[float]] = {setting: [] for setting in workers}
            with busy(neighbours):
                for _ in range(rounds):
                    for setting, pair in workers.items():
                        rates[setting].append(rate(pair[:jobs], what, threads, seconds))
            for setting, found in rates.items():
                label = f"{what}, {situation}, {setting}"
                note = f"{statistics.median(found):.1f} {unit}"
                yield Figure(label, ratio(rates, setting, "default"), note=note)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.work:
        work(given.small)
        return
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores, seconds, small = len(allowed) or os.cpu_count() or 1, given.seconds, []
    if given.small:
        cores, seconds, small = 1, 0.01, ["--small"]
    settings = {"cores": cores, "seconds": seconds, "rounds": given.rounds}
    report = Report("busy", "How should threads wait for each other?", settings)
    with ExitStack() as stack:
        workers = {s: [stack.enter_context(start(s, *small)) for _ in range(2)] for s in SETTINGS}
        for worker in (each for pair in workers.values() for each in pair):
            stack.callback(worker.kill)
        for worker in (each for pair in workers.values() for each in pair):
            if worker.stdout is None or worker.stdout.readline() != "ready\n":
                raise SystemExit("a worker must start, got an error; see above")
        report.figures += measure(workers, cores, given.rounds, seconds)
    report.finish(given.out)


if __name__ == "__main__":
    main()
