"""How long answers take: start-up, ranking, mixed batches, caches, verification.

    python -m benchmarks.inference [--small] [--rounds N] [--out DIR]

On the small base with five paths of random weights, each with adapters in the Q-Former that build
on those before. Start-up and verification run as commands of their own, the former with no feature
in the cache. Times of these are of the processor and of the clock: the latter on idle cores alone
are those that a user sees.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from os import environ
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.encoders import build_encoder
from pathweave.evaluate.verify import record_base, record_proof
from pathweave.model.base import save_base
from pathweave.model.generate import generate, search
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.reading import dump_recipe, load_recipe
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import new_model
from pathweave.runs.path_directory import save_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import cache_home

ROOT = Path(__file__).resolve().parents[1]
SOUND = ROOT / "examples" / "organ.ogg"
QUESTION = "What is this thing that you see or hear here, and what is it made of?"
ANSWER = 8  # tokens
THINGS = """
    boat car dog cat violin hammer trumpet lamp chair table sofa bed shoe shirt coat bag
    train plane bus truck bird horse fish drum piano guitar flute bell clock phone cup plate
    knife fork spoon bottle tree flower house bridge
""".split()  # noqa: SIM905 (forty words are easier to read so)
WORDS = [sys.executable, "-m", "pathweave.cli"]


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    torch.manual_seed(0)
    report = Report("inference", "How long do answers take?", {"base": "mini", "paths": 5})
    recipe = load_recipe(ROOT / "recipes" / "mcl_mini.yaml")
    model = random_model(recipe)
    with tempfile.TemporaryDirectory() as place:
        run = write_run(model, recipe, Path(place) / "run")
        report.figures += start_up(run, Path(place), given)
    with torch.no_grad():
        report.figures += [ranking(model, given), mixing(model, given)]
        report.figures += [prefixes(model, given), static(model, given)]
    report.finish(given.out)


def random_model(recipe: Recipe) -> PathWeave:
    """Return the model of a recipe with paths of random weights, each on all before."""
    model = new_model(recipe)
    names: list[str] = []
    for name in recipe.curriculum:
        rank = 16 if names else 0
        spec = PathSpec(name, width(recipe, name), 4, tuple(names[1:]), rank=rank)
        path = model.paths.expand(spec)
        for parameter in path.experts.parameters():
            torch.nn.init.normal_(parameter, std=0.01)
        names.append(name)
    return model.eval().requires_grad_(False)


def width(recipe: Recipe, name: str) -> int:
    """Return the width of the features of a modality's encoder."""
    component = recipe.modalities[name].encoder
    assert component is not None
    return build_encoder(component.kind, **component.options).width


def write_run(model: PathWeave, recipe: Recipe, root: Path) -> Path:
    """Write a run that is finished, with the proofs of its paths."""
    run = RunDirectory(root)
    root.mkdir()
    run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
    save_base(model.base, run.base)
    record_base(model, run)
    for name in model.paths.names:
        tensors, about = record_proof(model, prompts(model, [name] * 4))
        fingerprint = model.base.fingerprint()
        save_path(
            model.paths[name], model.paths, run.path(name), fingerprint, {"proof": about}, tensors
        )
    return root


def prompts(model: PathWeave, names: Sequence[str]) -> list[Prompt]:
    """Return a question about a random medium of each of some paths."""
    widths = [model.paths[name].spec.encoder_width for name in names]
    media = [Medium(n, torch.randn(1, 49, w)) for n, w in zip(names, widths, strict=True)]
    return [[medium, QUESTION] for medium in media]


def start_up(run: Path, place: Path, given: Namespace) -> list[Figure]:
    """Return what commands take from their start to their end."""
    figures = []
    commands = (
        ("pathweave --help", 0.3, ["--help"]),
        ("pathweave ask, one sound", 3.0, ["ask", str(run), "--audio", str(SOUND), QUESTION]),
        ("pathweave verify, five paths", 15.0, ["verify", str(run)]),
    )
    for label, limit, command in commands[: 1 if given.small else None]:
        taken = [timed(command, place / f"{command[0]}{i}") for i in range(given.rounds)]
        clock, processor = (statistics.median(each) for each in zip(*taken, strict=True))
        note = f"{processor:.2f} s of the processor"
        figures.append(Figure(label, clock, "s", at_most=limit, note=note))
    return figures


def timed(command: list[str], home: Path) -> tuple[float, float]:
    """Return the seconds of a command by the clock and of the processor, without features."""
    home.mkdir()
    (home / "weights").symlink_to(cache_home() / "weights")
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*WORDS, *command],
        env={**environ, "PATHWEAVE_HOME": str(home)},
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ranking(model: PathWeave, given: Namespace) -> Figure:
    """Return how much sooner choices are ranked than by reading the whole prompt for each."""
    choices = [f"a {thing}" for thing in THINGS[: 4 if given.small else None]]
    [prompt] = prompts(model, ["audio"])

    def whole() -> torch.Tensor:
        return torch.stack([-model([prompt], [choice])[0] for choice in choices])

    def shared() -> torch.Tensor:
        return log_likelihoods(model, [prompt], choices)[0]

    torch.testing.assert_close(shared(), whole(), atol=1e-3, rtol=1e-4)
    assert shared().argmax() == whole().argmax()
    times = in_turn({"whole": whole, "shared": shared}, given.rounds, time.process_time)
    note = "equal likelihoods within 1e-3 nats, and the same choice"
    label = f"ranking {len(choices)} choices: time of whole prompts to ours"
    return Figure(label, ratio(times, "whole", "shared"), at_least=8, note=note)


def mixing(model: PathWeave, given: Namespace) -> Figure:
    """Return the throughput of batches that mix five paths, to that of batches of one path."""
    names, size = model.paths.names, 2 if given.small else 8
    asked = {name: prompts(model, [name] * size) for name in names}
    flat = [one for of in zip(*asked.values(), strict=True) for one in of]
    mixed = [flat[i : i + size] for i in range(0, len(flat), size)]
    say = answering(model)
    found = dict(zip(map(id, flat), [a for batch in mixed for a in say(batch)], strict=True))
    assert all(say(batch) == [found[id(one)] for one in batch] for batch in asked.values())
    variants: dict[str, Callable[[], object]] = {
        "uniform": lambda: [say(batch) for batch in asked.values()],
        "mixed": lambda: [say(batch) for batch in mixed],
    }
    times = in_turn(variants, given.rounds, time.process_time)
    note = f"batches of {size}, {ANSWER} tokens, equal answers"
    return Figure(
        "throughput, mixed paths to one path a batch",
        ratio(times, "uniform", "mixed"),
        at_least=0.95,
        note=note,
    )


def answering(model: PathWeave) -> Callable[[Sequence[Prompt]], list[str]]:
    """Return what answers a batch in ``ANSWER`` tokens each."""
    return lambda batch: generate(model, batch, ANSWER, min_tokens=ANSWER)


def prefixes(model: PathWeave, given: Namespace) -> Figure:
    """Return what keeping the beginning of prompts saves where they begin alike."""
    batch, say = prompts(model, ["depth"] * (2 if given.small else 8)), answering(model)

    def without() -> list[str]:
        model.prefixes.are_shareable = False
        try:
            return say(batch)
        finally:
            model.prefixes.are_shareable = True

    assert without() == say(batch)
    times = in_turn(
        {"without": without, "kept": lambda: say(batch)}, given.rounds, time.process_time
    )
    note = "one question about many media, equal answers"
    return Figure(
        "time without the prefix cache to that with it", ratio(times, "without", "kept"), note=note
    )


def static(model: PathWeave, given: Namespace) -> Figure:
    """Return the time of a static cache of transformers to that of the one that grows."""
    batch = prompts(model, ["depth"] * (2 if given.small else 8))
    model.prefixes.are_shareable = False  # a cache that is given is one that grows

    def say(**settings: Any) -> list[list[int]]:  # noqa: ANN401 (they are those of search)
        tokens = search(model, batch, ANSWER, min_new_tokens=ANSWER, **settings)
        return [row for row in tokens.tolist()]

    fixed = {"cache_implementation": "static", "disable_compile": True}
    assert say() == say(**fixed)
    variants = {"grows": say, "static": lambda: say(**fixed)}
    times = in_turn(variants, given.rounds, time.process_time)
    model.prefixes.are_shareable = True
    note = "for engines that compile; equal tokens"
    return Figure(
        "time with a static cache to that with one that grows",
        ratio(times, "static", "grows"),
        note=note,
    )


if __name__ == "__main__":
    main()
