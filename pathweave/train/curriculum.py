"""The whole run: every stage is learnt, saved, and followed by scores of all modalities so far."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from pathweave.bases.base import save_base
from pathweave.config import DataSet, Recipe
from pathweave.data.examples import Examples, Readers
from pathweave.display import Display
from pathweave.encoders import licence_of
from pathweave.errors import RecipeError
from pathweave.evaluate.results import Results
from pathweave.evaluate.verify import Verdict, record_proof, verify_path
from pathweave.load import load_finished, make_readers, new_model
from pathweave.methods.pathweave import expand, finish
from pathweave.model import PathWeave
from pathweave.path_files import describe_path, load_proof, save_path
from pathweave.paths import Path as ModalPath
from pathweave.prompt import Medium
from pathweave.run_files import RunDirectory
from pathweave.train.log import RunLog, tensorboard_writer
from pathweave.train.report import make_results
from pathweave.train.scoring import Scoring
from pathweave.train.stage import Stage, train_stage

PROOF_SAMPLES = 4
STATISTICS_SAMPLES = 256


class Curriculum:
    """A run of a recipe in a directory; running it again resumes it.

    Args:
        recipe: The run.
        root: Where everything is written; the caller holds it alone.
        accelerator: Processes and devices.
        display: Where progress is shown.
        tensorboard: Write numbers for TensorBoard too.
    """

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        accelerator: Accelerator,
        display: Display,
        tensorboard: bool = False,
    ) -> None:
        self.recipe = recipe
        self.run = RunDirectory(root)
        self.accelerator = accelerator
        self.display = display
        self.is_main = accelerator.is_main_process
        writer = tensorboard_writer(root / "tensorboard") if tensorboard and self.is_main else None
        self.log = RunLog(self.run.log if self.is_main else None, writer)
        self._examples: dict[tuple[str, tuple[str, ...], int], Examples] = {}

    def __call__(self) -> Results:
        """Learn what is not learnt yet, score what is not scored yet, and report.

        Raises:
            Interrupted: After a request to stop; running again goes on from there.
            RunError: If the directory holds another run, or too many samples are bad.
            RecipeError: If the base cannot be taken through the curriculum.
        """
        if self.is_main:
            self.run.check(self.recipe)
        self.accelerator.wait_for_everyone()
        model = new_model(self.recipe)
        self.readers: Readers = make_readers(self.recipe, model.base)
        finished = load_finished(model, self.run, self.recipe)
        self._check(model, finished)
        # Only now: a recipe that was refused may be mended and run in the same directory.
        if self.is_main:
            self.run.claim(self.recipe)
        model.to(self.accelerator.device)
        if finished:
            self.display.say(f"resuming: {', '.join(finished)} already learnt")
        scoring = Scoring(self.recipe, self.run, self._examples_alone, self.display, self.log)
        for stage, name in enumerate(self.recipe.curriculum):
            if name not in finished:
                self._take(model, name)
            # Scores of the other processes would be the same: they wait instead.
            if self.is_main and not scoring.is_complete(stage):
                self._verify(model)
                scoring.score_stage(model, stage)
            self.accelerator.wait_for_everyone()
        results = make_results(self.recipe, self.run, model, scoring)
        if self.is_main:
            results.save(self.run.results)
        return results

    def examples(self, data: DataSet) -> Examples:
        """Return the usable samples of a data set, with all features computed by all processes."""
        return self._load(data, self.accelerator.process_index, self.accelerator.num_processes)

    def _examples_alone(self, data: DataSet) -> Examples:
        """Return the same on the process that scores, while the others wait for the scores."""
        return self._load(data, process=0, num_processes=1)

    def _load(self, data: DataSet, process: int, num_processes: int) -> Examples:
        manifest = data.manifest
        key = manifest, data.prompt, num_processes
        if key not in self._examples:
            examples = Examples(
                Path(manifest),
                self.readers,
                limit=self.recipe.limit,
                prompts=data.prompt,
                seed=self.recipe.seed,
            )
            bar = self.display.bar(f"encode {_short(manifest)}", total=len(examples))
            examples.encode(bar.advance, process, num_processes)
            if num_processes > 1:
                self.accelerator.wait_for_everyone()
            examples.keep_usable(self.recipe.bad_samples)
            bar.close()
            if examples.bad:
                self.log.event("bad_samples", manifest=manifest, problems=examples.bad)
                self.display.say(
                    f"{len(examples.bad)} bad samples in {manifest}: see {self.run.log}"
                )
            self._examples[key] = examples
        return self._examples[key]

    def _check(self, model: PathWeave, finished: list[str]) -> None:
        """Refuse a curriculum that the base cannot be taken through.

        Raises:
            RecipeError: If a stage has nothing to learn from, or the first one would learn with a
                random projector as it is.
        """
        todo = [name for name in self.recipe.curriculum if name not in finished]
        for name in todo:
            if self._is_learnt(model, name) and not self.recipe.modalities[name].train:
                raise RecipeError(
                    f"modalities.{name}.train must name a data set to learn from, got none; add "
                    f"one, or take {name!r} out of curriculum"
                )
        if not model.base.fresh_projector:
            return
        self.display.say("the projector starts fresh: the language model has another width")
        self.log.event("fresh_projector")
        if not self.recipe.training_of(todo[0]).connector:
            raise RecipeError(
                f"the first stage must train the fresh projector, got {todo[0]!r} without "
                f"training.connector; set modalities.{todo[0]}.training.connector to true, or "
                "choose a language model of the width that the base was trained with"
            )

    def _is_learnt(self, model: PathWeave, name: str) -> bool:
        """Say whether a stage trains anything; a path that the base came with is taken as it is."""
        return name not in model.paths or self.recipe.training_of(name).connector

    def _take(self, model: PathWeave, name: str) -> None:
        """Learn one modality, unless the base was pretrained with its path."""
        if self._is_learnt(model, name):
            self._learn(model, name)
            return
        modality = self.recipe.modalities[name]
        data: list[DataSet] = [*modality.train.values(), *modality.test.values()]
        sets = [(self.examples(some), 1.0) for some in data[:1]]
        self.display.say(f"[bold]{name}[/]: the base was pretrained with it")
        path = finish(model, name)
        if self.is_main:
            self._save(model, path, self._stage(name, sets), 0, 0.0)
        self.accelerator.wait_for_everyone()

    def _stage(
        self, name: str, sets: Sequence[tuple[Examples, float]], balance: Sequence[float] = ()
    ) -> Stage:
        return Stage(
            name=name,
            training=self.recipe.training_of(name),
            sets=sets,
            seed=self.recipe.seed + self.recipe.curriculum.index(name),
            checkpoint=self.run.checkpoint,
            balance=balance,
        )

    def _learn(self, model: PathWeave, name: str) -> None:
        """Train the path of one modality and save it."""
        modality = self.recipe.modalities[name]
        torch.manual_seed(self.recipe.seed + self.recipe.curriculum.index(name))
        is_new = name not in model.paths
        modules = expand(model, self.recipe, name, self.readers[name].encoder.width)
        sets = [(self.examples(data), data.weight) for data in modality.train.values()]
        stage = self._stage(name, sets, [data.balance for data in modality.train.values()])
        if self.recipe.method.standardise and is_new:
            model.paths[name].standardise_input(_sample_features(stage.sets[0][0], name))
        model.to(self.accelerator.device)
        trained = sum(p.numel() for p in modules.parameters())
        self.display.say(f"[bold]{name}[/]: training {trained:,} parameters")
        self.log.event("stage", stage=name, trained=trained)
        seconds = train_stage(model, modules, stage, self.accelerator, self.log, self.display)
        path = finish(model, name)
        if self.is_main:
            self._save(model, path, stage, trained, seconds)
        self.accelerator.wait_for_everyone()

    def _save(
        self, model: PathWeave, path: ModalPath, stage: Stage, trained: int, seconds: float
    ) -> None:
        """Write the path (and the connector, if the stage trained it) with its proof."""
        modality = self.recipe.modalities[stage.name]
        if stage.training.connector:
            save_base(model.base, self.run.base)
        tensors, proof, licences = None, None, set()
        if stage.sets:
            source = stage.sets[0][0]
            count = min(PROOF_SAMPLES, len(source))
            tensors, proof = record_proof(model.eval(), [source.prompt(i) for i in range(count)])
            licences = {source.sample(i).licence for i in range(len(source))} - {None}
        about = {
            "modality": modality.model_dump(mode="json", include={"decoder", "encoder", "cue"}),
            "training": stage.training.model_dump(mode="json"),
            "trained_parameters": trained,
            "seconds": round(seconds, 1),
            "licences": {
                **model.base.licences,
                "encoder": licence_of(modality.encoder.kind),
                "data": sorted(str(n) for n in licences),
            },
            "proof": proof,
        }
        directory = self.run.path(stage.name)
        save_path(path, model.paths, directory, model.base.fingerprint(), about, tensors)
        shutil.rmtree(stage.checkpoint, ignore_errors=True)
        self.log.event("saved", stage=stage.name, seconds=round(seconds, 1))

    def _verify(self, model: PathWeave) -> None:
        """Check that every finished path computes what it computed when it was finished."""
        for verdict in verify_run(model, self.run, model.paths.names):
            self.log.event("verified", **asdict(verdict))
            if not verdict.holds:
                self.display.say(f"[red]path {verdict.path!r} no longer computes what it did[/]")


def _sample_features(examples: Examples, name: str) -> Float[Tensor, "tokens width"]:
    """Return the tokens of some media of a path, evenly spaced over a set."""
    stride = max(1, len(examples) // STATISTICS_SAMPLES)
    media = (
        part
        for i in range(0, len(examples), stride)
        for part in examples.prompt(i)
        if isinstance(part, Medium) and part.path == name
    )
    return torch.cat([medium.features.flatten(0, 1) for medium in media])


def verify_run(model: PathWeave, run: RunDirectory, names: list[str]) -> list[Verdict]:
    """Verify saved paths of a run against the proofs kept with them."""
    verdicts = []
    for name in names:
        if not run.path(name).exists():
            continue  # it came with the base
        tensors, about = load_proof(run.path(name)), describe_path(run.path(name)).get("proof")
        if tensors and about:
            verdicts.append(verify_path(model, name, tensors, about))
    return verdicts


def _short(manifest: str) -> str:
    path = Path(manifest)
    return f"{path.parent.name}/{path.stem}"
