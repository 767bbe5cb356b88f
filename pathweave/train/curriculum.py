"""The whole run: every stage is learnt, saved, and followed by scores of all modalities so far."""

import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from pathweave.bases.base import save_base
from pathweave.config import Recipe
from pathweave.data.examples import Examples, Readers
from pathweave.display import Display
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
        self.readers: Readers = make_readers(recipe)
        self._examples: dict[tuple[str, int], Examples] = {}

    def __call__(self) -> Results:
        """Learn what is not learnt yet, score what is not scored yet, and report.

        Raises:
            Interrupted: After a request to stop; running again goes on from there.
            RunError: If the directory holds another run, or too many samples are bad.
        """
        if self.is_main:
            self.run.claim(self.recipe)
        self.accelerator.wait_for_everyone()
        model = new_model(self.recipe)
        load_finished(model, self.run, self.recipe)
        model.to(self.accelerator.device)
        if len(model.paths):
            self.display.say(f"resuming: {', '.join(model.paths.names)} already learnt")
        scoring = Scoring(self.recipe, self.run, self._examples_alone, self.display, self.log)
        for stage, name in enumerate(self.recipe.curriculum):
            if name not in model.paths:
                self._learn(model, name)
            # Scores of the other processes would be the same: they wait instead.
            if self.is_main and not scoring.is_complete(stage):
                self._verify(model)
                scoring.score_stage(model, stage)
            self.accelerator.wait_for_everyone()
        results = make_results(self.recipe, self.run, model, scoring)
        if self.is_main:
            results.save(self.run.results)
        return results

    def examples(self, manifest: str) -> Examples:
        """Return the usable samples of a manifest, with all features computed by all processes."""
        return self._load(manifest, self.accelerator.process_index, self.accelerator.num_processes)

    def _examples_alone(self, manifest: str) -> Examples:
        """Return the same on the process that scores, while the others wait for the scores."""
        return self._load(manifest, process=0, num_processes=1)

    def _load(self, manifest: str, process: int, num_processes: int) -> Examples:
        key = manifest, num_processes
        if key not in self._examples:
            examples = Examples(Path(manifest), self.readers, limit=self.recipe.limit)
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

    def _learn(self, model: PathWeave, name: str) -> None:
        """Train the path of one modality and save it."""
        modality = self.recipe.modalities[name]
        seed = self.recipe.seed + self.recipe.curriculum.index(name)
        torch.manual_seed(seed)
        modules = expand(model, self.recipe, name, self.readers[name].encoder.width)
        sets = [(self.examples(d.manifest), d.weight) for d in modality.train.values()]
        if self.recipe.method.standardise:
            model.paths[name].standardise_input(_sample_features(sets[0][0], name))
        model.to(self.accelerator.device)
        trained = sum(p.numel() for p in modules.parameters())
        self.display.say(f"[bold]{name}[/]: training {trained:,} parameters")
        stage = Stage(
            name=name,
            training=self.recipe.training_of(name),
            sets=sets,
            seed=seed,
            checkpoint=self.run.checkpoint,
            balance=[data.balance for data in modality.train.values()],
        )
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
        source = stage.sets[0][0]
        count = min(PROOF_SAMPLES, len(source))
        tensors, proof = record_proof(model.eval(), [source.prompt(i) for i in range(count)])
        licences = {source.sample(i).licence for i in range(len(source))} - {None}
        about = {
            "modality": modality.model_dump(mode="json", include={"decoder", "encoder", "cue"}),
            "training": stage.training.model_dump(mode="json"),
            "trained_parameters": trained,
            "seconds": round(seconds, 1),
            "licences": {**model.base.licences, "data": sorted(str(n) for n in licences)},
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
        tensors, about = load_proof(run.path(name)), describe_path(run.path(name)).get("proof")
        if tensors and about:
            verdicts.append(verify_path(model, name, tensors, about))
    return verdicts


def _short(manifest: str) -> str:
    path = Path(manifest)
    return f"{path.parent.name}/{path.stem}"
