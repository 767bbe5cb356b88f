"""Where the time of a run goes: input, connector, language model, optimiser, scoring.

    python -m benchmarks.profile_stage                      (MCL-mini, each stage for a few steps)
    python -m benchmarks.profile_stage --recipe RECIPE      (any other recipe)

The real training loop and the real scoring run on real data; what is timed is hooked from outside.
A step is taken apart by medians over the steps of a stage, and the time of the whole recipe follows
from the steps and answers that it asks for. A model that has learnt little gives answers as long as
they may be, so scoring is counted at its slowest. With one thread the processor's time is counted,
which other programs change little.
"""

import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Figure, Report, in_turn, options
from pathweave.data.cache import FeatureCache
from pathweave.data.examples import Examples
from pathweave.data.manifest import Manifest
from pathweave.data.readers import FeatureReader, Readers
from pathweave.display import Display
from pathweave.model.base import native_dtype
from pathweave.model.laid_out import LaidOut
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import Recipe
from pathweave.train import curriculum, scoring, stage
from pathweave.train.curriculum import Curriculum
from pathweave.train.medium_use import MediumWatch

RECIPE = Path(__file__).parents[1] / "recipes" / "mcl_mini.yaml"
WARM = 2  # steps of a stage before the one whose operations are counted; those after it are timed
READING = ("read samples", "decode", "encode")
IN_LLM = ("train: language model", "train: head")


class Parts:
    """Seconds and operations of the parts of a program, each without those inside it.

    Attributes:
        seconds: By part.
        operations: Of the products, by part, while they are counted.
        phase: What the program is about; it is part of the name of every part.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.phase = "start"
        self.undo = ExitStack()
        self._counter: FlopCounterMode | None = None
        self._clock = clock
        self._open = ["rest"]
        self._since, self._counted = clock(), 0

    def _book(self) -> None:
        now = self._clock()
        counted = self._counter.get_total_flops() if self._counter else 0
        part = f"{self.phase}: {self._open[-1]}"
        self.seconds[part] += now - self._since  # type: ignore[assignment]  # of any number
        self.operations[part] += counted - self._counted
        self._since, self._counted = now, counted

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count operations meanwhile."""
        self._book()
        with FlopCounterMode(display=False) as self._counter:
            yield
            self._book()
        self._counter, self._counted = None, 0

    @contextmanager
    def part(self, name: str, phase: str | None = None) -> Iterator[None]:
        """Time what is done meanwhile as a part, or as a phase of its own."""
        before = self.phase
        self.begin(name)
        self.phase = phase or before
        yield
        self.end()
        self.phase = before

    def of(self, phase: str) -> float:
        """Return the seconds of all parts of a phase."""
        return sum(s for part, s in self.seconds.items() if part.startswith(f"{phase}: "))

    def begin(self, part: str) -> None:
        """Begin a part, inside that which is open."""
        self._book()
        self._open.append(part)

    def end(self) -> None:
        """End the part that was begun last."""
        self._book()
        self._open.pop()

    def turn(self, part: str) -> None:
        """Let the open part be another from here on."""
        self.end()
        self.begin(part)

    def wrap(self, owner: Any, name: str, outer: Callable[..., Any]) -> None:  # noqa: ANN401
        """Put ``outer``, which is given the function and its arguments, in place of a function."""
        inner = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: outer(inner, *args, **kwargs))
        self.undo.callback(setattr, owner, name, inner)

    def watch(self, owner: Any, name: str, part: str, phase: str | None = None) -> None:  # noqa: ANN401
        """Time every call of a function or method as a part, or as a phase of its own."""

        def timed(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with self.part(part, phase):
                return inner(*args, **kwargs)

        self.wrap(owner, name, timed)

    def watch_module(self, module: nn.Module, part: str) -> None:
        """Time every forward pass of a module as a part."""
        module.register_forward_pre_hook(lambda *_: self.begin(part), prepend=True)
        module.register_forward_hook(lambda *_: self.end())


class Watch:
    """A run whose parts are timed, step by step and test set by test set.

    Attributes:
        parts: Seconds and operations.
        steps: Of each stage, seconds of the parts of every step that counts.
        operations: Of each stage, operations of the parts of one step.
        answers: Of each test set, how many were answered and in how many seconds.
        media: Media that were encoded.
        cached: Seconds to read a sample whose media are encoded.
        padding: Share of padding in what the language model read.
    """

    def __init__(self, run: Curriculum, clock: Callable[[], float]) -> None:
        self.parts = parts = Parts(clock)
        self.steps: dict[str, list[Counter[str]]] = defaultdict(list)
        self.operations: dict[str, Counter[str]] = {}
        self.answers: dict[str, tuple[int, float]] = {}
        self.media, self.cached, self.padding = 0, 0.0, 0.0
        self._clock, self._stage, self._step = clock, "", 0
        self._before: Counter[str] = Counter()
        self.looks = 0
        llm = run.model.llm
        parts.watch_module(llm, "language model, forward")
        parts.watch_module(llm.base_model, "language model, forward")
        head = llm.get_output_embeddings()
        parts.watch_module(head, "head, forward")
        head.register_forward_pre_hook(
            lambda _, args: self._at_gradient(args[0], "language model, backward")
        )
        parts.wrap(PathWeave, "lay_out", self._lay_out)
        parts.watch(PathWeave, "connect", "connector, forward")
        readers = [r for r in run.readers.values() if isinstance(r, FeatureReader)]
        kinds: dict[type, str] = {type(reader.decoder): "decode" for reader in readers}
        kinds |= {type(reader.encoder): "encode" for reader in readers}
        for kind, part in kinds.items():
            parts.watch(kind, "__call__", part)
        parts.watch(Examples, "prompt", "read samples")
        parts.watch(Examples, "encode", "read samples", "encode")
        parts.watch(Examples, "drop_bad_samples", "read samples", "check")
        parts.watch(curriculum, "train_stage", "rest", "train")
        parts.watch(Tensor, "backward", "head, backward")
        parts.watch(nn.utils, "clip_grad_norm_", "optimiser")
        parts.watch(stage, "limited_step", "optimiser")
        parts.watch(stage, "save_checkpoint", "rest", "save")
        parts.watch(MediumWatch, "look", "rest", "look")
        parts.wrap(MediumWatch, "look", self._look)
        parts.watch(curriculum, "save_stage", "rest", "save")
        parts.watch(Curriculum, "_verify", "rest", "save")
        parts.watch(scoring.Scoring, "score_stage", "rest", "score")
        parts.wrap(stage, "_accumulate", self._accumulate)
        parts.wrap(stage, "_report", self._report)
        parts.wrap(scoring, "evaluate_set", self._evaluate_set)

    def _at_gradient(self, tensor: Tensor, part: str) -> None:
        """Let the time of a backward pass count for another part once it is past a tensor."""
        if tensor.requires_grad:
            tensor.register_hook(lambda _: self.parts.turn(part))

    def _lay_out(self, inner: Callable[..., LaidOut], *args: Any, **kwargs: Any) -> LaidOut:  # noqa: ANN401
        with self.parts.part("tokens"):
            laid_out = inner(*args, **kwargs)
        self._at_gradient(laid_out.ride.vectors, "connector, backward")
        return laid_out

    def _accumulate(self, inner: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        lesson = args[1]
        if lesson.name != self._stage:
            self._stage, self._step = lesson.name, 0
        if self._step != WARM:
            return inner(*args)
        before = self.parts.operations.copy()
        with self.parts.counting():
            made = inner(*args)
        self.operations[self._stage] = self.parts.operations - before
        return made

    def _report(self, inner: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401
        inner(*args)
        self.parts.turn("rest")
        if self._step > WARM:
            self.steps[self._stage].append(self.parts.seconds - self._before)
        self._before = self.parts.seconds.copy()
        self._step += 1

    def _look(self, inner: Callable[..., None], *args: Any) -> None:  # noqa: ANN401
        inner(*args)
        self.looks += 1

    def _evaluate_set(self, inner: Callable[..., dict[int, str]], *args: Any) -> dict[int, str]:  # noqa: ANN401
        began = self._clock()
        answers = inner(*args)
        # The last, and largest, share of a set; the others are a single sample.
        self.answers[args[2].manifest] = len(answers), self._clock() - began
        return answers

    @property
    def look(self) -> float:
        """Seconds of a look at the use of the medium."""
        return self.parts.of("look") / max(1, self.looks)

    @property
    def once(self) -> dict[str, float]:
        """Seconds of what does not depend on the number of steps and of answers."""
        return {"start": self.parts.of("start"), "save": self.parts.of("save")}

    def step(self, name: str) -> dict[str, float]:
        """Return the median over the steps of a stage of the seconds of each of its parts."""
        found = self.steps[name]
        names = sorted({part for step in found for part in step if part.startswith("train: ")})
        return {part: statistics.median(step[part] for step in found) for part in names}


def profile(recipe: Recipe, clock: Callable[[], float]) -> Watch:
    """Run a recipe in a directory of its own, and return what was timed."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        run = Curriculum(recipe, root / "run", Accelerator(), Display(quiet=True))
        cache = FeatureCache(root / "features")
        run.readers = Readers(recipe.modalities, cache)
        watch = Watch(run, clock)
        with watch.parts.undo:
            environment = run().environment
            watch.padding = environment.padding if environment and environment.padding else 0.0
        watch.media = cache.size()["store"]["media"]
        sets = [run.examples(d) for m in recipe.modalities.values() for d in m.train.values()]
        began = clock()
        for examples in sets:
            for index in range(len(examples)):
                examples.prompt(index)
        watch.cached = (clock() - began) / sum(map(len, sets))
        return watch


def peak(clock: Callable[[], float], rounds: int, dtype: torch.dtype) -> float:
    """Return how many operations a second large products of a type reach."""
    size = 1536
    a, b = torch.randn(2, size, size).to(dtype)
    times = in_turn({"product": lambda: a @ b}, rounds, clock)["product"]
    return 2 * size**3 / statistics.median(times)


def whole(recipe: Recipe, watch: Watch) -> dict[str, float]:
    """Return the seconds that a whole recipe takes, by phase, from what a few steps took."""
    seconds = defaultdict(float, watch.once)
    subset, last = recipe.evaluation.subset, len(recipe.curriculum) - 1
    media = set()
    for index, name in enumerate(recipe.curriculum):
        training, modality = recipe.training_of(name), recipe.modalities[name]
        seconds["train"] += training.steps * sum(watch.step(name).values())
        if training.medium_every:
            seconds["train"] += training.steps // training.medium_every * watch.look
        for test_set in modality.test.values():
            count = len(Manifest(Path(test_set.manifest)))
            some = min(subset or count, count)
            asked = some * (last - index) + (count if recipe.evaluation.whole_at_end else some)
            done, took = watch.answers[test_set.manifest]
            seconds["score"] += asked * took / done
        for data in (*modality.train.values(), *modality.test.values()):
            manifest = Path(data.manifest)
            for sample in Manifest(manifest):
                parts = [part for turn in sample.messages for part in turn.content]
                media |= {(manifest.parent, part.path) for part in parts if part.path}
    seconds["encode"] = len(media) * watch.parts.of("encode") / watch.media
    return dict(seconds)


def of_stage(name: str, watch: Watch, best: Mapping[torch.dtype, float]) -> Iterator[Figure]:
    """Yield what a step of a stage consists of; ``best`` are the peaks, in operations a second."""
    step, operations = watch.step(name), watch.operations[name]
    # What every part would take at the peak of its type: the connector computes in float32.
    least = {
        part: count / best[native_dtype() if part.startswith(IN_LLM) else torch.float32]
        for part, count in operations.items()
        if count
    }
    everything = sum(step.values())
    yield Figure(f"{name}: a step", everything, "s")
    for part, seconds in sorted(step.items(), key=lambda pair: -pair[1]):
        note = f"{least[part] / max(seconds, 1e-9):.0%} of the peak" if part in least else ""
        share = 100 * seconds / everything
        yield Figure(f"{name}: {part.removeprefix('train: ')}", share, "%", note=note)
    products = [part for part in step if part in least]
    reached = sum(least[part] for part in products) / sum(step[part] for part in products)
    yield Figure(f"{name}: share of the peak, parts with products", 100 * reached, "%")
    reading = sum(step.get(f"train: {part}", 0.0) for part in READING)
    yield Figure(f"{name}: waiting for the input", 100 * reading / everything, "%", at_most=5)


def of_run(recipe: Recipe, watch: Watch) -> Iterator[Figure]:
    """Yield scoring taken apart, what the cache saves, and the time of the whole recipe."""
    parts = {p: s for p, s in watch.parts.seconds.items() if p.startswith("score: ")}
    for part, seconds in sorted(parts.items(), key=lambda pair: -pair[1]):
        share = 100 * seconds / watch.parts.of("score")
        yield Figure(f"scoring: {part.removeprefix('score: ')}", share, "%")
    fresh = watch.parts.of("encode") / watch.media
    yield Figure("reading a sample uncached, to cached", fresh / watch.cached, at_least=5)
    yield Figure("padding in training", 100 * watch.padding, "%", at_most=5)
    phases = whole(recipe, watch)
    everything = sum(phases.values())
    limit = 10 if native_dtype() == torch.bfloat16 else 20
    yield Figure(
        "the whole recipe", everything / 60, "min", at_most=limit, note="the limit: 2 cores"
    )
    for phase, took in sorted(phases.items(), key=lambda pair: -pair[1]):
        most = 25 if phase == "score" else None
        yield Figure(f"the whole recipe: {phase}", 100 * took / everything, "%", at_most=most)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="the recipe")
    chosen = parser.parse_args(arguments)
    recipe = load_recipe(chosen.recipe)
    few = WARM + 1 + chosen.rounds
    # After every stage but the last, as little as can be is scored.
    changes: dict[str, Any] = {"limit": 8 if chosen.small else 64, "evaluation.subset": 1}
    for name in recipe.curriculum:
        changes[f"modalities.{name}.training.steps"] = few
        changes[f"modalities.{name}.training.medium_every"] = few
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    watch = profile(load_recipe(chosen.recipe, changes), clock)
    settings = {"recipe": recipe.name, "steps timed of a stage": chosen.rounds}
    report = Report("profile_stage", "Where does the time of a stage go?", settings)
    types = {torch.float32, native_dtype()}
    best = {dtype: peak(clock, chosen.rounds, dtype) for dtype in types}
    for dtype, reached in best.items():
        settings[f"peak in {str(dtype).removeprefix('torch.')}"] = f"{reached / 1e9:.0f} G/s"
    ends = (recipe.curriculum[0], recipe.curriculum[-1])
    report.figures = [figure for name in ends for figure in of_stage(name, watch, best)]
    report.figures += of_run(recipe, watch)
    report.finish(chosen.out)


if __name__ == "__main__":
    main()
