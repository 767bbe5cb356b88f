"""Both engines on the prompts of a run: are greedy answers equal, and how long do they take?

    vllm serve LLM --enable-prompt-embeds --host 127.0.0.1 --port 8001 --dtype float32
    python benchmarks/engines.py runs/mcl_mini http://127.0.0.1:8001

Prompts are taken from the test sets of the run, evenly spaced and by turns. Both engines answer all
of so many clients at once. Where answers differ, their log-likelihoods are compared: two that
are nearly equal are a tie, which rounding decides. Then some prompts are timed by turns, with media
encoded before. Last, what loading with and without the language model's layers takes, in a process
of its own each.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

LOADING = """
import json, sys, time, psutil
from pathlib import Path
from pathweave.runs.loading import load_run
import pathweave.serve.in_process
process = psutil.Process()
before, began = process.memory_full_info().uss, time.perf_counter()
kept = load_run(Path(sys.argv[1]), layers=sys.argv[2] == "layers")
seconds = time.perf_counter() - began
more = process.memory_full_info().uss - before
print(json.dumps({"seconds": round(seconds, 2), "own_MB_more": round(more / 1e6)}))
"""


def prompts_of(run: Path, model: Any, count: int) -> list[Any]:  # noqa: ANN401
    """Return prompts of all test sets of a run, with media encoded."""
    from pathweave.data.examples import Examples
    from pathweave.runs.loading import make_readers
    from pathweave.runs.run_directory import RunDirectory

    recipe = RunDirectory(run).recipe()
    readers = make_readers(recipe, model.base, RunDirectory(run))
    sets = [s for name in recipe.curriculum for s in recipe.modalities[name].test.values()]
    share = -(-count // len(sets))
    examples = [Examples(Path(s.manifest), readers, s.path, share) for s in sets]
    by_set = [[one.prompt(i) for i in range(len(one))] for one in examples]
    return [p for p in chain(*zip_longest(*by_set)) if p is not None][:count]


async def answer_all(
    engine: Any,  # noqa: ANN401
    prompts: Sequence[Any],
    clients: int,
    max_tokens: int,
) -> tuple[list[str], list[int], float]:
    """Return the answers, the pieces in which each came, and seconds."""
    from pathweave.serve.engine import Asked

    room, pieces = asyncio.Semaphore(clients), [0] * len(prompts)

    async def ask(i: int) -> str:
        async with room:
            said = ""
            async for piece in engine.stream(Asked(prompts[i], max_tokens)):
                said += piece.text
                pieces[i] += 1
            return said

    began = time.perf_counter()
    answers = await asyncio.gather(*(ask(i) for i in range(len(prompts))))
    return answers, pieces, time.perf_counter() - began


async def measure(args: argparse.Namespace, model: Any, remote: Any) -> dict[str, Any]:  # noqa: ANN401
    """Ask both engines."""
    from pathweave.model.rank import log_likelihoods
    from pathweave.serve.in_process import InProcess

    engines = {"in process": InProcess(model), "vllm": remote}
    prompts = prompts_of(args.run, model, args.count)
    said, report = {}, {"prompts": len(prompts), "clients": args.clients}
    for name, engine in engines.items():
        answers, pieces, _ = await answer_all(engine, prompts, args.clients, args.max_tokens)
        said[name] = answers
        report[f"pieces a longest answer, {name}"] = max(pieces)
    differing = [i for i, pair in enumerate(zip(*said.values(), strict=True)) if len({*pair}) > 1]
    report["equal"] = len(prompts) - len(differing)
    report["distinct answers"] = len({*said["in process"]})
    report["others"] = []
    for i in differing:
        pair = [answers[i] for answers in said.values()]
        nats = log_likelihoods(model, [prompts[i]], pair)[0].tolist()
        report["others"].append({"answers": pair, "nats": [round(n, 4) for n in nats]})
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(args.rounds):
        for name, engine in engines.items():
            took = await answer_all(engine, prompts[: args.timed], args.clients, args.max_tokens)
            seconds[name].append(round(took[2], 2))
    report["timed prompts"], report["seconds"] = args.timed, seconds
    for engine in engines.values():
        await engine.close()
    return report


def main() -> None:
    """Print the report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--timed", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=16)
    args = parser.parse_args()

    from pathweave.runs.loading import load_run
    from pathweave.serve.vllm_engine import remote_engine

    model, _ = load_run(args.run)
    remote = remote_engine(load_run(args.run, layers=False)[0], args.run, args.url)
    report = asyncio.run(measure(args, model, remote))
    for kind in ("layers", "words"):
        command = [sys.executable, "-c", LOADING, str(args.run), kind]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        report[f"loading, {kind}"] = json.loads(done.stdout)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
