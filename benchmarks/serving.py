"""How fast many callers are answered: one at a time, in batches of this process, and by a vLLM.

    python -m benchmarks.serving [RUN] [--engine URL] [--clients 1,8,64] [--rounds N] [--out DIR]
    python -m benchmarks.serving RUN --soak 10000          (memory after so many answers)

    vllm serve LLM --enable-prompt-embeds --host 127.0.0.1 --port 8001 --dtype float32

Callers ask one question after the other, from the test sets of the run's recipe, its modalities in
turn; features are in the cache. Without a run they are about random media of random paths. The ways
take turns within a round. All must give the same answers: where a vLLM gives another, the
log-likelihoods of both are compared; two that are nearly equal are a tie, which rounding decides.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, cycle, islice
from pathlib import Path

import psutil

from benchmarks.inference import ROOT, prompts, random_model
from benchmarks.report import Figure, Report, options
from pathweave.data.examples import Examples
from pathweave.model.pathweave import PathWeave
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.reading import load_recipe
from pathweave.runs.assistant import Assistant, load
from pathweave.runs.run_directory import RunDirectory
from pathweave.serve.engine import Asked, Engine, whole
from pathweave.serve.in_process import InProcess
from pathweave.serve.vllm_engine import remote_engine

ALONE, BATCHES, VLLM = "one at a time", "batches", "vLLM"
AT_LEAST = {(BATCHES, 8): 3.0}  # of the throughput one at a time
TIE = 0.05  # nats between two answers, either of which may be given
WAITING = 1000


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = options(__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--engine", help="address of a vLLM that serves the run's language model")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--each", type=int, default=4, help="questions of a caller")
    parser.add_argument("--soak", type=int, help="only ask so many, and report memory")
    given = parser.parse_args(words)
    asks = f"{given.each} questions" + (" of the run's test sets" if given.run else "")
    settings: dict[str, object] = {"each caller asks": asks, "rounds": given.rounds}
    report = Report("serving", "How fast are many callers answered?", settings)
    if given.run:
        assistant = load(given.run)
        model, asked = assistant.model, questions(assistant, given.run)
    else:
        model = random_model(load_recipe(ROOT / "recipes" / "mcl_mini.yaml"))
        asked = [Asked(one, 8) for one in prompts(model, list(model.paths.names) * 8)]
    if given.soak:
        report.figures += asyncio.run(soak(model, asked, given.soak))
    else:
        ways: dict[str, Engine] = {
            ALONE: InProcess(model, max_batch=1, max_waiting=WAITING),
            BATCHES: InProcess(model, max_waiting=WAITING),
        }
        if given.engine:
            without = load(given.run, layers=False).model
            ways[VLLM] = remote_engine(without, given.run, given.engine, max_waiting=WAITING)
        counts = [int(count) for count in given.clients.split(",")]
        report.figures += asyncio.run(compare(ways, asked, counts, given.each, given.rounds))
        if given.engine:
            report.figures += asyncio.run(equality(model, given.run, given.engine, asked))
    report.finish(given.out)


def questions(assistant: Assistant, run: Path, each: int = 40) -> list[Asked]:
    """Return the first questions of every test set, the modalities of the run in turn."""
    recipe, sets = RunDirectory(run).recipe(), []
    for name in RunDirectory(run).finished(recipe):
        for test in recipe.modalities[name].test.values():
            examples = Examples(Path(test.manifest), assistant.readers, test.path, each)
            sets.append([Asked(examples.prompt(i), test.max_tokens) for i in range(len(examples))])
    return list(chain.from_iterable(zip(*sets, strict=False)))


async def compare(
    ways: dict[str, Engine], asked: list[Asked], counts: list[int], each: int, rounds: int
) -> list[Figure]:
    """Return throughput and time to the first token of each way, for so many callers at once."""
    speeds: dict[tuple[str, int], list[float]] = {(w, c): [] for w in ways for c in counts}
    firsts: dict[tuple[str, int], list[float]] = {(w, c): [] for w in ways for c in counts}
    for number in range(rounds + 1):
        for count in counts:
            answers = {}
            for way, engine in ways.items():
                answers[way], speed, first = await measure(engine, asked, count, each)
                if number:  # the first round warms up
                    speeds[way, count].append(speed)
                    firsts[way, count].append(first)
            assert answers[ALONE] == answers[BATCHES]
    for engine in ways.values():
        await engine.close()
    figures = []
    for (way, count), found in speeds.items():
        callers = f"{count} caller{'s' * (count > 1)}"
        if way != ALONE:
            pairs = zip(found, speeds[ALONE, count], strict=True)
            value = statistics.median(a / b for a, b in pairs)
            limit = AT_LEAST.get((way, count))
            label = f"throughput, {way} to one at a time, {callers}"
            note = f"{statistics.median(found):.2f} answers a second"
            figures.append(Figure(label, value, at_least=limit, note=note))
        value = statistics.median(firsts[way, count])
        figures.append(Figure(f"first token, {way}, {callers}", value, "s"))
    return figures


async def measure(
    engine: Engine, asked: list[Asked], clients: int, each: int
) -> tuple[list[str], float, float]:
    """Return what callers saw who asked at once, each one question after the other.

    Returns:
        The answers, how many there were a second, and the median of the seconds to a first token.
    """
    first: list[float] = []
    answers = [""] * (clients * each)

    async def call(number: int) -> None:
        mine = range(number * each, (number + 1) * each)
        for place, one in zip(mine, islice(cycle(asked), mine.start, mine.stop), strict=True):
            start, heard = time.perf_counter(), 0.0
            async for piece in engine.stream(one):
                heard = heard or time.perf_counter()
                answers[place] += piece.text
            first.append(heard - start)

    start = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(clients)))
    speed = len(answers) / (time.perf_counter() - start)
    return answers, speed, statistics.median(first)


async def equality(model: PathWeave, run: Path, url: str, asked: list[Asked]) -> list[Figure]:
    """Return how many answers of a vLLM are those of this process, or ties with them."""
    engine = remote_engine(load(run, layers=False).model, run, url, max_waiting=WAITING)
    found = await answer_all(engine, asked)
    expected = await answer_all(InProcess(model, max_waiting=WAITING), asked)
    differing = [i for i, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1]
    ties = sum(is_tie(model, asked[i], [found[i], expected[i]]) for i in differing)
    note = f"of {len(asked)}; {len({*expected})} distinct answers"
    return [
        Figure("answers of vLLM that are equal", len(asked) - len(differing), "answers", note=note),
        Figure(
            "answers that differ by more than a tie", len(differing) - ties, "answers", at_most=0
        ),
    ]


async def answer_all(engine: Engine, asked: Sequence[Asked]) -> list[str]:
    """Return the answers to questions that are put at once, and close the engine."""
    try:
        return [
            each.text for each in await asyncio.gather(*(whole(engine.stream(a)) for a in asked))
        ]
    finally:
        await engine.close()


def is_tie(model: PathWeave, asked: Asked, answers: Sequence[str]) -> bool:
    """Return whether two answers are nearly as likely."""
    one, other = log_likelihoods(model, [asked.prompt], answers)[0].tolist()
    return abs(one - other) < TIE


async def soak(model: PathWeave, asked: list[Asked], count: int) -> list[Figure]:
    """Return how the memory of the process grows while so many are answered, 64 at a time."""
    engine, process = InProcess(model, max_waiting=WAITING), psutil.Process()
    source, memory = cycle(asked), []
    for done in range(0, count, 64):
        batch = [replace(one, max_tokens=4) for one in islice(source, min(64, count - done))]
        await asyncio.gather(*(whole(engine.stream(one)) for one in batch))
        memory.append(process.memory_info().rss / 2**20)
    await engine.close()
    label = f"memory after {count:,} answers, more than after 64"
    note = f"{memory[-1]:,.0f} MiB in all"
    return [Figure(label, memory[-1] - memory[0], "MiB", note=note)]


if __name__ == "__main__":
    main()
