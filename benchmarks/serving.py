"""How fast many callers are answered: one batch for all, one at a time, and an engine of its own.

python benchmarks/serving.py RUN [--engine URL] [--clients 1,8,64] [--rounds 3] [--json]
python benchmarks/serving.py RUN --soak 10000          (memory after so many requests)

Callers ask one question after the other, from the test sets of the run's recipe, its modalities in
turn; features are in the cache. The ways take turns within a round, and a figure is the median over
rounds of the ratio to "one at a time" within its round.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import psutil
import torch

from pathweave.data.examples import Examples
from pathweave.runs.assistant import Assistant, load
from pathweave.runs.run_directory import RunDirectory
from pathweave.serve.engine import Asked, Engine, whole
from pathweave.serve.in_process import InProcess
from pathweave.serve.vllm_engine import remote_engine

ALONE = "one at a time"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--engine", help="address of a vLLM that serves the run's language model")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--each", type=int, default=4, help="questions of a caller")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, help="only ask so many, and report memory")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    assistant = load(given.run)
    asked = questions(assistant, given.run)
    if given.soak:
        report = asyncio.run(soak(assistant, asked, given.soak))
    else:
        ways: dict[str, Engine] = {
            ALONE: InProcess(assistant.model, max_batch=1, max_waiting=1000),
            "batches": InProcess(assistant.model, max_waiting=1000),
        }
        if given.engine:
            without = load(given.run, layers=False).model
            ways["vLLM"] = remote_engine(without, given.run, given.engine, max_waiting=1000)
        counts = [int(count) for count in given.clients.split(",")]
        report = asyncio.run(compare(ways, asked, counts, given.each, given.rounds))
    report["torch"], report["threads"] = torch.__version__, torch.get_num_threads()
    print(json.dumps(report, indent=2) if given.json else table(report))


def questions(assistant: Assistant, run: Path, each: int = 40) -> list[Asked]:
    """Return the first questions of every test set, the modalities of the run in turn."""
    recipe, sets = RunDirectory(run).recipe(), []
    for name in RunDirectory(run).finished(recipe):
        for test in recipe.modalities[name].test.values():
            examples = Examples(Path(test.manifest), assistant.readers, limit=each)
            sets.append([Asked(examples.prompt(i), test.max_tokens) for i in range(len(examples))])
    return list(chain.from_iterable(zip(*sets, strict=False)))


async def compare(
    ways: dict[str, Engine], asked: list[Asked], counts: list[int], each: int, rounds: int
) -> dict[str, Any]:
    """Return first-token and whole latency and throughput of each way, for so many callers."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {str(count): [] for count in counts}
    for number in range(rounds + 1):
        for count in counts:
            taken = {way: await measure(engine, asked, count, each) for way, engine in ways.items()}
            if number:  # the first round warms up
                found[str(count)].append(taken)
    for engine in ways.values():
        await engine.close()
    return {"clients": {count: medians(taken) for count, taken in found.items()}}


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the medians over rounds of each way, and of its throughput to that one at a time."""
    speed = "answers a second"
    return {
        way: {what: statistics.median(r[way][what] for r in rounds) for what in rounds[0][way]}
        | {"ratio": statistics.median(r[way][speed] / r[ALONE][speed] for r in rounds)}
        for way in rounds[0]
    }


async def measure(engine: Engine, asked: list[Asked], clients: int, each: int) -> dict[str, float]:
    """Return what callers saw who asked at once, each one question after the other."""
    first, last = [], []

    async def call(number: int) -> None:
        for one in islice(cycle(asked), number * each, (number + 1) * each):
            start, heard = time.perf_counter(), 0.0
            async for _ in engine.stream(one):
                heard = heard or time.perf_counter()
            first.append(heard - start)
            last.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(clients)))
    return {
        "first token, s": statistics.median(first),
        "whole answer, s": statistics.median(last),
        "answers a second": len(last) / (time.perf_counter() - start),
    }


async def soak(assistant: Assistant, asked: list[Asked], count: int) -> dict[str, Any]:
    """Return the memory of the process while so many questions are answered, 64 at a time."""
    engine, process = InProcess(assistant.model, max_waiting=1000), psutil.Process()
    source, memory = cycle(asked), {}
    for done in range(0, count, 64):
        batch = [replace(one, max_tokens=4) for one in islice(source, min(64, count - done))]
        await asyncio.gather(*(whole(engine.stream(one)) for one in batch))
        if done % 1024 == 0 or done + 64 >= count:
            memory[str(done + len(batch))] = round(process.memory_info().rss / 2**20)
    await engine.close()
    return {"memory, MiB, after so many answers": memory}


def table(report: dict[str, Any]) -> str:
    """Return a report as text."""
    lines = [f"torch {report['torch']}, {report['threads']} threads"]
    for count, ways in report.get("clients", {}).items():
        lines += ["", f"{count} callers"]
        for name, found in ways.items():
            figures = ", ".join(f"{what} {value:.2f}" for what, value in found.items())
            lines.append(f"  {name:16} {figures}")
    for done, size in report.get("memory, MiB, after so many answers", {}).items():
        lines.append(f"{done:>8} answers  {size:,} MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
