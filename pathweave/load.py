"""From a recipe and a directory to a model and its readers."""

from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from pathweave.bases.base import Base, freeze, load_connector, load_directory, native_dtype
from pathweave.bases.mini import load_mini
from pathweave.config import Recipe, unknown
from pathweave.data.cache import FeatureCache
from pathweave.data.examples import Readers
from pathweave.errors import RecipeError
from pathweave.files import cache_home
from pathweave.model import PathWeave
from pathweave.path_files import load_order, load_path
from pathweave.run_files import RunDirectory


def load_base(kind: str, seed: int = 0) -> Base:
    """Return a base; what it has no pretrained weights for starts random, from ``seed``.

    Args:
        kind: ``mini``, or a directory that holds a base.
        seed: Seed of the parts that start random.

    Raises:
        RecipeError: If there is no such base.
        FetchError: If its weights cannot be fetched.
        PathError: If the directory is incomplete.
    """
    # A bar for loading weights would tear the bars of a run apart.
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    if kind == "mini":
        return load_mini()
    if Path(kind).is_dir():
        return load_directory(Path(kind), native_dtype())
    raise RecipeError(f"{unknown('base', kind, ['mini'])}, or a directory that holds a base")


def new_model(recipe: Recipe) -> PathWeave:
    """Return the base of a recipe, with cues and without paths."""
    cues = {name: modality.cue for name, modality in recipe.modalities.items()}
    return PathWeave(load_base(recipe.base, recipe.seed), cues)


def load_run(root: Path, only: list[str] | None = None) -> tuple[PathWeave, Recipe]:
    """Return the model of a run with its finished paths, and the run's recipe.

    Args:
        root: Directory of the run.
        only: Load these paths and their predecessors; None loads all.

    Raises:
        RunError: If the directory is no run.
        PathError: If a path is damaged, or a predecessor is missing or another.
    """
    run = RunDirectory(root)
    recipe = run.recipe()
    model = new_model(recipe)
    load_finished(model, run, recipe, only)
    freeze(model)
    return model, recipe


def load_finished(
    model: PathWeave, run: RunDirectory, recipe: Recipe, only: list[str] | None = None
) -> None:
    """Load the connector of a run and its finished paths into a model without paths."""
    finished = run.finished(recipe)
    if not finished:
        return
    if run.base.exists():
        load_connector(model.base, run.base)
    fingerprint = model.base.fingerprint()
    for name in load_order({name: run.path(name) for name in finished}, only):
        load_path(run.path(name), model.paths, fingerprint)


def make_readers(recipe: Recipe) -> Readers:
    """Return readers of the declared modalities over the shared cache of features."""
    return Readers(recipe.modalities, FeatureCache(cache_home() / "features"))
