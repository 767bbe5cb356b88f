"""What modalities cost in memory: parameters, the peak of a stage, what servers share.

    python -m benchmarks.memory

- Five modalities are compared with a whole connector (Q-Former and projector) for each, from shapes
  alone, for the small base and for the full size.
- A stage's peak is the most memory that a process holds during three steps, less what it held
  before: every stage in a process of its own, with media of the size that the encoder gives.
- Servers: two processes load the same model and answer. What the second takes for itself is what
  the system cannot give to both. As stored, the language model stays mapped from its file; where
  the processor does not multiply that type, each process converts it and holds a copy.
"""

import ctypes
import importlib
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.report import Figure, Report, options
from pathweave.bases.mini import load_mini
from pathweave.estimate.encoders import features_read
from pathweave.estimate.estimate import estimate_recipe
from pathweave.methods.pathweave import expand
from pathweave.model.base import (
    Base,
    load_connector,
    load_directory,
    native_dtype,
    save_base,
)
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import Recipe
from pathweave.train.schedule import make_optimizer

MEGA = 1e6
STEPS, PATIENCE = 3, 600.0  # seconds that one process waits for another
WORDS, ANSWER = "What is this, and what is it made of?", "a red shoe"
SIZES = {"the small base": Path("mcl_mini"), "InstructBLIP-Vicuna-7B": Path("pathweave_vicuna7b")}
# Children are made of a process that has imported everything, and what it holds does not count.
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["pathweave.estimate.estimate", "transformers.models.llama"])


def against_connectors(recipe: Recipe) -> float:
    """Return the bytes of connector and all paths, over those of a connector a modality."""
    stages = estimate_recipe(recipe).stages
    return stages[-1].inference.connector / sum(4 * stage.full_tuning for stage in stages)


def memory(*fields: str) -> float:
    """Return memory of this process in MB, as Linux counts it, but for what has been freed."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 / MEGA for line in lines}
    return sum(found[field] for field in fields)


def peak(run: Callable[[], object]) -> float:
    """Return how far the resident memory of this process rises while something runs, in MB."""
    before = memory("Rss")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    run()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / MEGA - before


def load(place: Path | None, dtype: torch.dtype) -> Base:
    """Return the base in a directory, or the small one."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    return load_mini(dtype) if place is None else load_directory(place, dtype)


def stage_peak(recipe: Recipe, place: Path | None, stage: int) -> float:
    """Return the peak of a stage's training, in MB: in a process of its own."""
    model = PathWeave(load(place, native_dtype()))
    for name in recipe.curriculum[: stage + 1]:
        media = features_read(recipe, name)
        trained = expand(model, recipe, name, media.width)
    training = recipe.training_of(name)
    size = training.micro_batch or training.batch_size
    optimizer = make_optimizer(trained, training)
    features = torch.randn(media.units, media.tokens, media.width)
    prompts: list[Prompt] = [[Medium(name, features), WORDS]] * size
    model.train()

    def train() -> None:
        for _ in range(STEPS):
            loss, _ = model(prompts, [ANSWER] * size)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return peak(train)


def serve(
    place: Path | None,
    connector: Path,
    dtype: torch.dtype,
    loaded: Any,  # noqa: ANN401 (events and queues have no class of their own)
    ready: Any,  # noqa: ANN401
    found: Any,  # noqa: ANN401
) -> None:
    """Load the model and answer; when all have, tell the memory in all and for itself alone."""
    fields = ("Rss", "Private_Clean", "Private_Dirty")
    before = [memory(field) for field in fields]
    base = load(place, dtype)
    load_connector(base, connector)
    model = PathWeave(base).eval()
    generate(model, [[WORDS]], 1)
    loaded.release()
    ready.wait()
    resident, clean, dirty = (memory(field) - b for field, b in zip(fields, before, strict=True))
    found.put((resident, clean + dirty))
    ready.wait()  # or what it shares would be the other's own


def of_its_own(place: Path | None, dtype: torch.dtype) -> tuple[float, float]:
    """Return what a process that loads a model takes, and of that what is its own, in MB.

    Another has loaded the same.
    """
    loaded, ready, found = forks.Semaphore(0), forks.Barrier(3, timeout=PATIENCE), forks.Queue()
    with tempfile.TemporaryDirectory() as temporary:
        connector = Path(temporary) / "base"
        save_base(load(place, dtype), connector)
        given = (place, connector, dtype, loaded, ready, found)
        servers = [forks.Process(target=serve, args=given) for _ in range(2)]
        for server in servers:
            server.start()
            assert loaded.acquire(timeout=PATIENCE)
        ready.wait()
        told = [found.get(timeout=PATIENCE) for _ in servers]
        ready.wait()
        for server in servers:
            server.join()
    return max(told)


def measure(report: Report, recipes: Mapping[str, Path], place: Path | None) -> None:
    """Add all figures to a report.

    Args:
        report: The report.
        recipes: Recipes by the size of their base; the first one's stages are trained.
        place: The base; None is the small one.
    """
    for label, file in recipes.items():
        share = against_connectors(load_recipe(file))
        title = f"connector and all paths, to a connector a modality: {label}"
        report.figures.append(Figure(title, share, at_most=0.25))
    recipe, peaks = load_recipe(next(iter(recipes.values()))), []
    for stage, name in enumerate(recipe.curriculum):
        with ProcessPoolExecutor(1, forks) as pool:
            peaks.append(pool.submit(stage_peak, recipe, place, stage).result())
        report.figures.append(Figure(f"peak of stage {stage + 1}, {name}", peaks[-1], "MB"))
    title = "largest peak of a later stage, to the first, which trains the connector"
    report.figures.append(Figure(title, max(peaks[1:]) / peaks[0], at_most=1.0))
    for label, dtype in {"as stored": torch.bfloat16, "converted": torch.float32}.items():
        resident, own = of_its_own(place, dtype)
        title = f"a second server, language model {label}: its own, of what it takes"
        note = f"{own:.0f} of {resident:.0f} MB"
        limit = 0.4 if dtype == torch.bfloat16 else None
        report.figures.append(Figure(title, own / resident, at_most=limit, note=note))


def main() -> None:
    """Measure and report."""
    given = options(__doc__).parse_args()
    report = Report("memory", "What do modalities cost in memory, and what do servers share?")
    report.settings |= {"steps": STEPS, "type of the processor": str(native_dtype())}
    if given.small:
        write = importlib.import_module("tests.tiny").write_tiny_recipe
        with tempfile.TemporaryDirectory() as temporary:
            file = write(Path(temporary), "sight", "sound")
            measure(report, {"tiny": file}, file.parent / "base")
    else:
        measure(report, SIZES, None)
    report.finish(given.out)


if __name__ == "__main__":
    main()
