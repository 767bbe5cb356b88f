"""Stages that cells share: learnt once, or taken from a run, and linked into each cell.

In a grid that is the first stage. One that trains the connector makes the base that every method
starts from. Its result depends on the settings below and on nothing else of a method, so that cells
that agree in them take copies (hard links) of one run.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pathweave.compare.grid import recipe_hash
from pathweave.compare.sessions import sessions
from pathweave.errors import RunError
from pathweave.recipe.schema import MethodSection, Recipe
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory
from pathweave.train.log import RunLog

# Settings of the method that a stage which trains the connector heeds; of no other does the base
# depend, whatever the method.
HEEDED = ("queries", "standardise")

# How the names of files begin that are of a run itself and not of its first stage.
_OWN = (".", "checkpoint", "log.jsonl", "output.txt", "recipe.", "results.")


def first_stage(recipe: Recipe, out: Path) -> tuple[Recipe, Path] | None:
    """Return the recipe of a first stage alone and its directory; None where it cannot be shared.

    Args:
        recipe: The recipe of a cell.
        out: Directory of the grid.

    Raises:
        ManifestError: If a manifest cannot be read.
    """
    name = recipe.curriculum[0]
    if not recipe.training_of(name).connector or len(recipe.curriculum) == 1:
        return None
    alone = recipe.cut(1)
    modality = alone.modalities[name].model_copy(update={"training": {}})
    changes = {
        "method": MethodSection.model_validate({f: getattr(recipe.method, f) for f in HEEDED}),
        # In one place, so that settings of later stages alone make no difference; a stage without
        # adapters has neither up-projections nor gates, and nothing inside the language model.
        "training": recipe.training_of(name).model_copy(
            update={"up_lr": None, "gate_lr": None, "llm_lr_share": 1.0}
        ),
        "modalities": {**alone.modalities, name: modality},
        # Whole sets are scored after the last stage of the cell, not of this.
        "evaluation": recipe.evaluation.model_copy(update={"whole_at_end": False}),
    }
    alone = alone.model_copy(update=changes)
    directory = out / "shared" / f"{name}-seed{recipe.seed}-{recipe_hash(alone)[:8]}"
    return alone, directory


def take_stages(run: RunDirectory, names: Sequence[str], stage: Path) -> None:
    """Make the directory of shared stages from the first ones of a finished run, without scores.

    Args:
        run: The run.
        names: The stages.
        stage: The directory; one that is there already must hold the same stages.

    Raises:
        RunError: If it holds stages that were learnt otherwise.
        PathError: If a path of either is damaged.
        DiskError: If the directory cannot be written.
    """
    taken = RunDirectory(stage)
    if taken.results.is_file():
        for name in names:
            found, expected = (describe_path(each.path(name)) for each in (taken, run))
            if found["content_hash"] != expected["content_hash"]:
                raise RunError(
                    f"{stage} must hold stage {name!r} as {run.root} has it, got another one; go "
                    "on with the run that it was begun with, or choose another --out"
                )
        return
    with new_directory(stage) as fresh:
        for part in (run.base, run.connectors, *map(run.path, names)):
            if part.is_dir():
                target = fresh / part.relative_to(run.root)
                shutil.copytree(part, target, copy_function=_link)
        _link(str(run.results), str(fresh / taken.results.name))  # it is finished
        RunLog(fresh / taken.log.name).event("taken", stages=list(names))


def start_from(stage: Path, cell: Path) -> None:
    """Make the directory of a cell in which the shared stages are done.

    Args:
        stage: Directory of the shared stages, trained and scored.
        cell: Directory of the cell, in which nothing is trained yet.

    Raises:
        DiskError: If the directory cannot be written.
    """

    def own(folder: str, names: list[str]) -> list[str]:
        """Return the files that are of the run itself."""
        return [n for n in names if n.startswith(_OWN)] if Path(folder) == stage else []

    spent = sessions(RunDirectory(stage).log)
    event = {name: spent[name] for name in ("seconds", "peak_memory_bytes")}
    with new_directory(cell) as fresh:
        shutil.copytree(stage, fresh, ignore=own, copy_function=_link, dirs_exist_ok=True)
        RunLog(fresh / "log.jsonl").event("shared", directory=stage.name, **event)


def _link(source: str, target: str) -> None:
    """Link a file, which nothing changes in place; copy it where that cannot be done."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
