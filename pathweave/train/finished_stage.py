"""Finished stages, and the files they leave in the directory of their run."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice

from torch import Tensor

from pathweave.data.examples import Examples
from pathweave.data.manifest import evenly_spaced
from pathweave.encoders import licence_of
from pathweave.evaluate.verify import record_proof
from pathweave.model.base import save_base
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.parts import sources_of
from pathweave.recipe.schema import Recipe
from pathweave.runs.connector_directory import save_shared
from pathweave.runs.path_directory import save_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.train.medium_use import medium_use

PROOF_SAMPLES = 4
USE_SAMPLES = 16


@dataclass(frozen=True)
class FinishedStage:
    """A stage that has ended.

    Attributes:
        names: Modalities that it learnt.
        trained: Number of parameters that it trained.
        seconds: How long it trained, over all sessions.
        connector_before: Fingerprint of the base before it, if it changed the shared connector.
        method_state: What its method hands on to the next stage.
        method: Name of the method; None for PathWeave, and for a stage that makes the base.
    """

    names: tuple[str, ...]
    trained: int = 0
    seconds: float = 0.0
    connector_before: str | None = None
    method_state: Mapping[str, Tensor] = field(default_factory=dict)
    method: str | None = None


def save_stage(
    stage: FinishedStage,
    model: PathWeave,
    recipe: Recipe,
    run: RunDirectory,
    source: Callable[[str], Examples | None],
) -> None:
    """Write what a stage changed, its path last: the stage is done when that is there.

    Args:
        stage: The stage.
        model: The model as it is now.
        recipe: The run.
        run: Its directory.
        source: Gives the samples of a modality that its path is to be verified with.

    Raises:
        DiskError: If something cannot be written.
    """
    first = stage.names[0]
    if recipe.training_of(first).connector:
        save_base(model.base, run.base)
    if stage.connector_before is not None:
        save_shared(model, run.connector(first), stage.names, stage.method_state)
    # Of a stage that learns several modalities the first is written last, and holds the figures.
    for name in reversed(stage.names):
        tensors, proof, licences = None, None, set()
        if (samples := source(name)) is not None:
            # Text alone proves nothing of a path.
            few = list(islice(_with_media(samples), PROOF_SAMPLES))
            tensors, proof = record_proof(model.eval(), few) if few else (None, None)
            licences = {samples.sample(i).licence for i in range(len(samples))} - {None}
        about = {
            "modality": recipe.about_media(name),
            "training": recipe.training_of(name).model_dump(mode="json"),
            "trained_parameters": stage.trained if name == first else 0,
            "seconds": round(stage.seconds, 1) if name == first else 0.0,
            "licences": {
                **model.base.licences,
                "encoder": ", ".join(licence_of(kind) for kind in recipe.encoder_kinds(name)),
                "data": sorted(str(n) for n in licences),
            },
            "sources": sources_of(recipe.own_parts(name)),
            "proof": proof,
        }
        if stage.method is not None:
            about["method"] = stage.method
        if stage.connector_before is not None and name == first:
            about["connector_before"] = stage.connector_before
        if samples is not None and recipe.modalities[name].train:
            spread = evenly_spaced(len(samples), USE_SAMPLES)
            prompts = [samples.prompt(i) for i in spread]
            use = medium_use(model, prompts, [samples.answer(i) for i in spread])
            # Rounded, as the last digits depend on the number of threads.
            told = {} if use is None else {n: round(v, 3) for n, v in asdict(use).items()}
            about["medium_use"] = told or None
        path, fingerprint = model.paths[name], model.base.fingerprint()
        save_path(path, model.paths, run.path(name), fingerprint, about, tensors)
    done_with = [run.checkpoint, *run.root.glob(f"{run.checkpoint.name}-*")]
    if stage.connector_before is not None:
        done_with += [d for d in run.connectors.iterdir() if d != run.connector(first)]
    for directory in done_with:
        shutil.rmtree(directory, ignore_errors=True)


def _with_media(samples: Examples) -> Iterator[Prompt]:
    prompts = (samples.prompt(index) for index in range(len(samples)))
    return (prompt for prompt in prompts if any(isinstance(part, Medium) for part in prompt))
