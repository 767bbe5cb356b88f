"""The first stage, trained once for all cells in which it is the same.

A stage that trains the connector makes the base that every method starts from. Its result depends
on the settings below and on nothing else of a method, so that cells that agree in them take copies
(hard links) of one run.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pathweave.compare.grid import recipe_hash
from pathweave.compare.sessions import sessions
from pathweave.recipe.schema import MethodSection, Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory
from pathweave.train.log import RunLog

# Settings of the method that a stage which trains the connector heeds; of no other does the base
# depend, whatever the method.
HEEDED = ("queries", "standardise")

# How the names of files begin that are of a run itself and not of its first stage.
_OWN = (".", "checkpoint", "log.jsonl", "output.txt", "recipe.", "results.")


@dataclass(frozen=True)
class FirstStage:
    """A run of the first stage alone.

    Attributes:
        recipe: Its recipe.
        directory: Where it is.
    """

    recipe: Recipe
    directory: Path

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return f"shared {self.directory.name}"

    @property
    def is_done(self) -> bool:
        """Whether it is trained and scored."""
        return RunDirectory(self.directory).results.is_file()


def first_stage(recipe: Recipe, out: Path) -> FirstStage | None:
    """Return the first stage of a recipe, or None where it cannot be shared.

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
        # adapters has neither up-projections nor gates.
        "training": recipe.training_of(name).model_copy(update={"up_lr": None, "gate_lr": None}),
        "modalities": {**alone.modalities, name: modality},
        # Whole sets are scored after the last stage of the cell, not of this.
        "evaluation": recipe.evaluation.model_copy(update={"whole_at_end": False}),
    }
    alone = alone.model_copy(update=changes)
    directory = out / "shared" / f"{name}-seed{recipe.seed}-{recipe_hash(alone)[:8]}"
    return FirstStage(alone, directory)


def start_from(stage: FirstStage, cell: Path) -> None:
    """Make the directory of a cell in which the first stage is done.

    Args:
        stage: The first stage, trained and scored.
        cell: Directory of the cell, in which nothing is trained yet.

    Raises:
        DiskError: If the directory cannot be written.
    """
    spent = sessions(RunDirectory(stage.directory).log)
    with new_directory(cell) as fresh:
        for entry in sorted(stage.directory.iterdir()):
            if entry.name.startswith(_OWN):
                continue
            target = fresh / entry.name
            if entry.is_dir():
                shutil.copytree(entry, target, copy_function=_link)
            else:
                _link(str(entry), str(target))
        event = {"seconds": spent.seconds, "peak_memory_bytes": spent.peak_memory_bytes}
        RunLog(fresh / "log.jsonl").event("shared", directory=stage.directory.name, **event)


def _link(source: str, target: str) -> None:
    """Link a file, which nothing changes in place; copy it where that cannot be done."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
