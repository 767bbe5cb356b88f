"""The whole run: every stage is learnt, saved, and followed by scores of all modalities so far."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from pathweave.data.examples import Examples
from pathweave.data.readers import Readers, common_width
from pathweave.display import Display
from pathweave.errors import RecipeError, RunError
from pathweave.evaluate.results import Results
from pathweave.evaluate.verify import record_base, verify_base, verify_run
from pathweave.methods import METHODS, check_stages, method_of, stages_of
from pathweave.methods.lesson import StageContext, WeightedSet
from pathweave.model.base import freeze
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium
from pathweave.recipe.schema import DataSet, Recipe, TrainSet
from pathweave.runs.connector_directory import load_carried
from pathweave.runs.loading import load_finished, make_readers, new_model, placed_model
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import holder_of
from pathweave.train.finished_stage import FinishedStage, save_stage
from pathweave.train.log import RunLog
from pathweave.train.processes import Processes
from pathweave.train.run_results import make_results
from pathweave.train.scoring import Scoring
from pathweave.train.stage import train_stage
from pathweave.train.trackers import start_trackers

STATISTICS_SAMPLES = 256


class Curriculum:
    """A run of a recipe in a directory; running it again resumes it.

    Args:
        recipe: The run.
        root: Where everything is written; the caller holds it alone.
        accelerator: Processes and devices, and the trackers of the run.
        display: Where progress is shown.

    Raises:
        RunError: If the directory holds another run.
        RecipeError: If the recipe's base or parts cannot be made.
    """

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        accelerator: Accelerator,
        display: Display,
    ) -> None:
        self.recipe = recipe
        self.run = RunDirectory(root)
        self.accelerator = accelerator
        self.processes = Processes(accelerator)
        self.display = display
        writer = accelerator.log if accelerator.log_with else None
        self.log = RunLog(self.run.log if self.processes.is_first else None, writer)
        self._examples: dict[tuple[object, ...], Examples] = {}
        self.processes.alone(partial(self.run.check, recipe))
        rule = f"{root} must be one directory that all processes see"
        self.processes.check_same(holder_of(root), rule, "choose an --out on a disk they share")
        if finished := self.run.finished(recipe):
            display.say(f"resuming: {', '.join(finished)} already learnt")
        self.model: PathWeave = new_model(recipe)
        self.readers: Readers = make_readers(recipe, self.model.base, self.run)
        ready = [path.spec.name for path in self.model.base.ready_paths]
        self.stages = stages_of(recipe, ready)

    def __call__(self) -> Results:
        """Learn what is not learnt yet, score what is not scored yet, and report.

        Raises:
            Interrupted: After a request to stop; running again goes on from there.
            RunError: If the directory holds another run, or too many samples are bad.
            RecipeError: If the base cannot be taken through the curriculum.
        """
        finished = load_finished(self.model, self.run, self.recipe)
        self._check(finished)
        self.processes.shard(self.model)
        placed_model(self.model, self.accelerator.device)
        # Only now: a recipe that was refused may be mended and run in the same directory.
        self.processes.alone(self._begin)
        scoring = Scoring(
            self.recipe, self.run, self.examples, self.display, self.log, self.processes
        )
        for names in self.stages:
            if names[0] not in finished:
                self._take(names)
            self._score(names, finished, scoring)
        results = make_results(self.recipe, self.run, self.model, scoring)
        if self.processes.is_first:
            results.save(self.run.results)
        return results

    def _begin(self) -> None:
        """Claim the directory for the recipe, and keep what the base says without any path."""
        self.run.claim(self.recipe)
        if self.accelerator.log_with:
            start_trackers(self.accelerator, self.run, self.log)
        if not self.run.base_proof.exists():
            record_base(self.model, self.run)

    def examples(self, data: DataSet) -> Examples:
        """Return the usable samples of a data set, with all features computed."""
        group = self.processes
        manifest, limit = Path(data.manifest), self.recipe.limit_of(data)
        draw = data.draw if isinstance(data, TrainSet) else None
        key = manifest, data.prompt, data.path, limit, draw
        if key not in self._examples:
            examples = Examples(
                manifest, self.readers, data.path, limit, data.prompt, self.recipe.seed
            )
            began = time.perf_counter()
            label = f"encode {manifest.parent.name}/{manifest.stem}"
            bar = self.display.bar(label, total=len(examples))
            group.encode(examples, bar.advance)
            examples.drop_bad_samples(self.recipe.bad_samples, self.model.misfit)
            group.check_samples(examples)
            bar.close()
            seconds = round(time.perf_counter() - began, 1)
            self.log.event("encoded", manifest=data.manifest, seconds=seconds)
            if draw is not None:
                examples.draw(draw)
            if examples.bad:
                self.log.event("bad_samples", manifest=data.manifest, problems=examples.bad)
                self.display.say(
                    f"{len(examples.bad)} bad samples in {manifest}: see {self.run.log}"
                )
            self._examples[key] = examples
        return self._examples[key]

    def _check(self, finished: list[str]) -> None:
        """Refuse a curriculum that the base cannot be taken through.

        Raises:
            RecipeError: If a stage has nothing to learn from, or reads features of several widths,
                or the first one would learn with a random projector as it is.
            RunError: If a modality is added to those that were learnt at once.
        """
        for names in self.stages:
            if names[0] in finished and names[-1] not in finished:
                raise RunError(
                    f"a method that learns all at once must begin with all of them, got "
                    f"{names[-1]!r} added to {self.run.root}; choose another --out"
                )
        todo = [name for name in self.recipe.curriculum if name not in finished]
        for name in todo:
            # Now and not when its turn comes, which may be hours later.
            if reads := self.recipe.modalities[name].reads:
                common_width(name, {other: self.readers[other].width for other in reads})
        learnt = [name for name in todo if self._is_learnt(name)]
        if problems := lacking_data(self.recipe, learnt, todo):
            raise RecipeError(problems[0])
        check_stages(self.model, self.recipe, learnt)
        if not self.model.base.fresh_projector:
            return
        self.display.say("the projector starts fresh: the language model has another width")
        self.log.event("fresh_projector")
        if not self.recipe.training_of(todo[0]).connector:
            raise RecipeError(
                f"the first stage must train the fresh projector, got {todo[0]!r} without "
                f"training.connector; set modalities.{todo[0]}.training.connector to true, or "
                "choose a language model of the width that the base was trained with"
            )

    def _is_learnt(self, name: str) -> bool:
        """Return whether a stage trains; a path that the base came with is taken as it is."""
        return name not in self.model.paths or self.recipe.training_of(name).connector

    def _score(self, names: tuple[str, ...], finished: list[str], scoring: Scoring) -> None:
        """Score what is not scored yet after a stage, with paths that compute what they did."""
        stage = self.recipe.curriculum.index(names[-1])
        if not scoring.is_complete(stage):
            self.processes.alone(partial(self._check_unchanged, names, finished))
            self.processes.alone(self._verify)
            if self.processes.count > 1:
                hashes = [
                    self.model.base.fingerprint(),
                    *(p.content_hash() for p in self.model.paths),
                ]
                rule = "all processes must score the same weights"
                self.processes.check_same(str(hashes), rule, "run the same command again")
            scoring.score_stage(self.model, stage)

    def _check_unchanged(self, names: tuple[str, ...], finished: list[str]) -> None:
        """Refuse to score a stage with a connector that later stages have changed.

        Raises:
            RunError: If they have.
        """
        after = self.recipe.curriculum.index(names[-1]) + 1
        later = [name for name in self.recipe.curriculum[after:] if name in finished]
        if later and METHODS[self.recipe.method.name].shares:
            raise RunError(
                f"{self.run.scores} must hold the scores after stage {names[-1]!r}, as the stage "
                f"{later[0]!r} has changed the connector since, got none; restore the file, or "
                "choose another --out"
            )

    def _take(self, names: tuple[str, ...]) -> None:
        """Learn what a stage is to learn, unless the base was pretrained with its path."""
        if any(self._is_learnt(name) for name in names):
            stage = self._learn(names)
        else:
            self._source(names[0])
            self.display.say(f"[bold]{names[0]}[/]: the base was pretrained with it")
            stage = FinishedStage(names)
        freeze(self.model)
        self.processes.alone(partial(self._save, stage))

    def _save(self, stage: FinishedStage) -> None:
        save_stage(stage, self.model, self.recipe, self.run, self._source)
        self.log.event("saved", stage=stage.names[0], seconds=round(stage.seconds, 1))

    def _source(self, name: str) -> Examples | None:
        """Return the samples that a path is verified with: of its first data set."""
        modality = self.recipe.modalities[name]
        data: list[DataSet] = [*modality.train.values(), *modality.test.values()]
        return self.examples(data[0]) if data else None

    def _learn(self, names: tuple[str, ...]) -> FinishedStage:
        """Carry out the lessons of a stage."""
        earlier = self.recipe.curriculum[: self.recipe.curriculum.index(names[0])]
        newest = self.run.newest_connector(earlier)
        handed_on = {} if newest is None else load_carried(newest)
        context = StageContext(
            model=self.model,
            recipe=self.recipe,
            names=names,
            earlier=earlier,
            width=lambda name: self.readers[name].width,
            sets=lambda name: [
                WeightedSet(self.examples(data), data.weight, data.balance)
                for data in self.recipe.modalities[name].train.values()
            ],
            method_state={name: t.to(self.model.device) for name, t in handed_on.items()},
        )
        for name in names:
            for data in self.recipe.modalities[name].train.values():
                types = self.examples(data).manifest.part_types
                if data.path is None and types.isdisjoint(self.recipe.read_by(name)):
                    raise RecipeError(
                        f"modalities.{name}.train must hold media of {name!r}, got "
                        f"{sorted(types) or 'text alone'} in {data.manifest}; name the manifest of "
                        "its media"
                    )
        method = method_of(self.recipe, names[0])
        torch.manual_seed(context.seed)
        before = self.model.base.fingerprint() if method.shares else None
        new = [name for name in names if name not in self.model.paths]
        trained: dict[int, int] = {}
        seconds = 0.0
        for lesson in method.lessons(context):
            for name in new if self.recipe.method.standardise else ():
                source = self.examples(next(iter(self.recipe.modalities[name].train.values())))
                self.model.paths[name].standardise_input(_sample_features(source, name))
            new = []
            self.model.to(self.accelerator.device)
            sizes = {id(p): p.numel() for p in lesson.trained.parameters()}
            self.display.say(f"[bold]{lesson.name}[/]: training {sum(sizes.values()):,} parameters")
            self.log.event("stage", stage=lesson.name, trained=sum(sizes.values()))
            trained |= sizes
            self.model.checkpointing = lesson.training.checkpointing
            seconds += train_stage(
                self.model,
                lesson,
                self.run.lesson_checkpoint(lesson.part),
                self.processes,
                self.log,
                self.display,
            )
        return FinishedStage(
            names=names,
            trained=sum(trained.values()),
            seconds=seconds,
            connector_before=before,
            method_state=context.method_state,
            method=None if method == METHODS["pathweave"] else self.recipe.method.name,
        )

    def _verify(self) -> None:
        """Check that every finished path computes what it computed when it was finished."""
        of_paths = verify_run(self.model, self.run, self.model.paths.names)
        for verdict in [*verify_base(self.model, self.run), *of_paths]:
            self.log.event("verified", **asdict(verdict))
            if not verdict.holds:
                self.display.say(f"[red]{verdict.path!r} no longer computes what it did[/]")


def lacking_data(recipe: Recipe, learnt: Sequence[str], todo: Sequence[str]) -> list[str]:
    """Return which modalities lack training data that a run needs.

    Args:
        recipe: The run.
        learnt: Modalities that it has yet to train.
        todo: Modalities whose stages it has yet to finish.
    """
    found = [
        f"modalities.{name}.train must name a data set to learn from, got none; add one, or take "
        f"{name!r} out of curriculum"
        for name in learnt
        if not recipe.modalities[name].train
    ]
    method = recipe.method.name
    if not METHODS[method].replays or not todo:
        return found
    return found + [
        f"method {method} must have the training data of every modality, got none of {name!r}; "
        f"add modalities.{name}.train, or choose another method"
        for name in recipe.curriculum
        if not recipe.modalities[name].train
    ]


def _sample_features(examples: Examples, name: str) -> list[Float[Tensor, "_ width"]]:
    """Return the units of some media of a path, evenly spaced over a set."""
    stride = max(1, len(examples) // STATISTICS_SAMPLES)
    media = (
        part
        for i in range(0, len(examples), stride)
        for part in examples.prompt(i)
        if isinstance(part, Medium) and part.path == name
    )
    return [unit for medium in media for unit in medium.features]
