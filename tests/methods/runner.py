"""Runs of three sensors whose first stage, the same for all methods, is made once."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from pathweave.display import Display
from pathweave.evaluate.results import Results
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.train.curriculum import Curriculum

QUICK = {
    "training.steps": 4,
    "training.save_every": 2,
    "training.weight_decay": 0.0,
    "evaluation.whole_at_end": False,
}


@dataclass
class Runner:
    """Runs methods on a recipe; overrides are dotted fields with two underscores for a dot."""

    recipe_file: Path
    root: Path
    first: Path | None = None

    def recipe(self, method: str, **overrides) -> Recipe:
        dotted = {name.replace("__", "."): value for name, value in overrides.items()}
        return load_recipe(self.recipe_file, {**QUICK, "method.name": method, **dotted})

    def curriculum(self, method: str, run: str | None = None, **overrides) -> Curriculum:
        """Return what runs in a directory, which is made with the first stage if need be."""
        out = self.root / (run or method)
        if self.first is not None and not out.exists():
            shutil.copytree(
                self.first, out, ignore=shutil.ignore_patterns("recipe.json", "log.jsonl")
            )
        recipe = self.recipe(method, **overrides)
        return Curriculum(recipe, out, Accelerator(cpu=True), Display(quiet=True))

    def __call__(self, method: str, run: str | None = None, **overrides) -> RunDirectory:
        self.results: Results = self.curriculum(method, run, **overrides)()
        return RunDirectory(self.root / (run or method))
