"""Learning curve: one stage of a recipe, learnt from more and more samples.

It is a grid whose orders are numbers of samples and whose methods are variants of the recipe. What
is learnt before the stage is learnt once, or taken from a finished run, and shared by all cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pathweave.compare.grid import Cell, Declaration, Grid, recipe_hash
from pathweave.compare.run_grid import GridOutcome, run_grid
from pathweave.compare.shared import take_stages
from pathweave.data.manifest import Manifest
from pathweave.errors import RecipeError, RunError
from pathweave.methods import METHODS
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import Recipe
from pathweave.runs.run_directory import RunDirectory, differences
from pathweave.train.extend import extended
from pathweave.validation import explain, unknown

ALL = "all"

# What a variant may change: how its own stage learns. Labels make no difference to anything.
_FREE = {"name", "quick", "bad_samples", "method", "training"}
_LEARNING = ("train", "training", "predecessors", "positions", "columns", "patches", "kernels")


@dataclass(frozen=True)
class Curve:
    """A learning curve with all its cells.

    Attributes:
        grid: The cells: its methods are the variants, its orders the numbers of samples.
        recipe: The recipe of the first variant, up to the stage.
        stage: What is learnt.
        samples: Numbers of samples, increasing.
        run: The finished run that the stages before are taken from; None if they are to be learnt.
    """

    grid: Grid
    recipe: Recipe
    stage: str
    samples: tuple[int, ...]
    run: RunDirectory | None

    @property
    def variants(self) -> list[str]:
        """Return the names of the variants; the others are compared with the first."""
        return list(self.grid.declared.methods)

    def cell(self, variant: str, samples: int, seed: int) -> Cell:
        """Return one cell."""
        place = variant, _order(samples), seed
        return next(c for c in self.grid.cells if (c.method, c.order, c.seed) == place)

    def earlier(self, out: Path) -> tuple[Recipe, Path] | None:
        """Return the recipe of the stages before and its directory; None if there are none."""
        count = len(self.recipe.curriculum) - 1
        if not count:
            return None
        recipe = _unscored(self.recipe.cut(count), self.recipe.curriculum[:count])
        return recipe, out / "shared" / f"earlier-{recipe_hash(recipe)[:8]}"


def parse_samples(text: str) -> tuple[int | None, ...]:
    """Return numbers of samples given as ``10,20,all``; None is all there are.

    Raises:
        RecipeError: If there is none, one is no number above 0, or they do not increase.
    """
    words = [word.strip() for word in text.split(",")]
    last = words[-1] == ALL
    numbers = [int(word) for word in words[: len(words) - last] if _is_number(word)]
    known = len(numbers) + last == len(words)
    rising = all(a < b for a, b in zip([0, *numbers], numbers, strict=False))
    if not (known and rising):
        raise RecipeError(
            f"--samples must be numbers from 1 that increase, at the end also {ALL}, got {text!r}; "
            f"try 10,20,40,{ALL}"
        )
    return (*numbers, *((None,) if last else ()))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return seeds given as ``0,1,2``.

    Raises:
        RecipeError: If one is no number from 0.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(map(_is_number, words)):
        raise RecipeError(f"--seeds must be numbers from 0, got {text!r}; try 0,1,2")
    return tuple(map(int, words))


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) < 10


def parse_variants(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return overrides by name of variants given as ``NAME: {FIELD: VALUE}``, in YAML.

    Raises:
        RecipeError: If one is anything else, or two have one name.

    Example:
        >>> parse_variants(["usual: {}", "alone: {modalities.sound.predecessors: []}"])
        {'usual': {}, 'alone': {'modalities.sound.predecessors': []}}
    """
    variants: dict[str, dict[str, Any]] = {}
    for text in texts:
        try:
            tree = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            tree = None
        [(name, fields)] = tree.items() if isinstance(tree, dict) and len(tree) == 1 else [(0, 0)]
        if not isinstance(name, str) or not isinstance(fields, dict):
            raise RecipeError(
                f"--variant must be a name and the fields that differ, got {text!r}; try "
                "'alone: {modalities.NAME.predecessors: []}', or 'usual: {}' for no difference"
            )
        if name in variants:
            raise RecipeError(f"variants must have different names, got {name!r} twice")
        variants[name] = {str(field): value for field, value in fields.items()}
    return variants


def load_curve(
    recipe: Path,
    samples: Sequence[int | None],
    seeds: Sequence[int],
    variants: Mapping[str, dict[str, Any]],
    overrides: Mapping[str, Any],
    stage: str | None = None,
    run: Path | None = None,
) -> Curve:
    """Return the learning curve of a stage of a recipe.

    Args:
        recipe: The file; with a run also one that declares what is added to the run.
        samples: Increasing numbers of samples, of all training sets of the stage together; None,
            as the last one, is all.
        seeds: Seeds of the cells: of the samples that are drawn, and of the training.
        variants: Overrides of the recipe by name; none is the recipe as it is.
        overrides: Overrides for all.
        stage: What is learnt; None is the last of the recipe.
        run: Directory of a finished run that the stages before are taken from; None learns them.

    Raises:
        RecipeError: If the recipe, a variant, the stage or a number does not fit.
        RunError: If the run is not finished, or of another recipe.
        ManifestError: If a training set cannot be read.
    """
    given = dict(variants) or {"recipe": {}}
    source = RunDirectory(run) if run is not None else None
    loaded = {
        name: _load(recipe, {**overrides, **own}, source, f"variant {name!r}" if own else "")
        for name, own in given.items()
    }
    whole = next(iter(loaded.values()))
    stage = whole.curriculum[-1] if stage is None else stage
    if stage not in whole.curriculum:
        raise RecipeError(unknown("--stage", stage, whole.curriculum))
    position = whole.curriculum.index(stage)
    cut = {name: each.cut(position + 1) for name, each in loaded.items()}
    first = next(iter(cut.values()))
    for name, each in cut.items():
        _check(first, each, f"variant {name!r}")
    if source is not None:
        _check_run(source, first)
    sizes = {name: _sizes(each) for name, each in cut.items()}
    total = min(sum(of_sets.values()) for of_sets in sizes.values())
    numbers = tuple(total if number is None else number for number in samples)
    if numbers[-1] > total or len(set(numbers)) < len(numbers):
        raise RecipeError(
            f"--samples must be at most the {total} that stage {stage!r} has to learn from, each "
            f"once, got {', '.join(map(str, numbers))}; leave out what is beyond"
        )
    tree = {
        "name": f"{first.name}: learning curve of {stage}",
        "recipe": str(recipe),
        "seeds": seeds,
        "methods": given,
        "orders": {_order(number): list(first.curriculum) for number in numbers},
    }
    try:
        declared = Declaration.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(error, Declaration)) from error
    cells = tuple(
        Cell(name, _order(number), seed, _recipe_of_cell(each, shares(sizes[name], number), seed))
        for seed in seeds
        for number in numbers
        for name, each in cut.items()
    )
    return Curve(Grid(declared, cells), first, stage, numbers, source)


def run_curve(
    curve: Curve, out: Path, jobs: int = 1, quiet: bool = False, track: Sequence[str] = ()
) -> GridOutcome:
    """Learn what is not learnt yet of a learning curve; see ``run_grid``, which does it.

    Raises:
        PathWeaveError: For whatever stops a grid, and if the directory holds other earlier stages.
    """
    shared = curve.earlier(out)
    if shared is not None and curve.run is not None:
        take_stages(curve.run, shared[0].curriculum, shared[1])
    return run_grid(curve.grid, out, jobs=jobs, quiet=quiet, shared=lambda *_: shared, track=track)


def _order(samples: int) -> str:
    return f"n{samples}"


def _load(
    file: Path, overrides: dict[str, Any], run: RunDirectory | None, variant: str = ""
) -> Recipe:
    """Return the recipe of a variant; behind the stages of a run if it declares an addition."""
    for field in ("seed", "curriculum"):
        if variant and field in overrides:
            raise RecipeError(
                f"{variant} must change how the stage learns, got another {field}; leave it out"
            )
    try:
        recipe = load_recipe(file, overrides)
        if run is None:
            return recipe
        before, count = run.recipe(), len(recipe.curriculum)
        if recipe.curriculum[0] == before.curriculum[0]:
            return recipe
        if before.curriculum[-count:] == recipe.curriculum:  # what it adds was added already
            before = before.cut(len(before.curriculum) - count)
        return extended(before, recipe)
    except RecipeError as error:
        raise RecipeError(f"{variant}: {error}" if variant else str(error)) from error


def _check(first: Recipe, recipe: Recipe, variant: str) -> None:
    """Refuse a variant without a curve, or one that differs from the first in more than learning.

    Raises:
        RecipeError: If it has nothing to learn from or to be scored on, learns all at once, or
            differs from the first in earlier stages, the base or the test sets.
    """
    stage = recipe.curriculum[-1]
    modality = recipe.modalities[stage]
    for field, sets in (("train", modality.train), ("test", modality.test)):
        if not sets:
            purpose = "learn from" if field == "train" else "be scored on"
            raise RecipeError(
                f"modalities.{stage}.{field} must name a data set to {purpose}, got none; add one"
            )
    if METHODS[recipe.method.name].at_once:
        raise RecipeError(
            f"a learning curve must be of a method that learns stage by stage, got method "
            f"{recipe.method.name!r}; choose another"
        )

    def fixed(each: Recipe) -> dict[str, Any]:
        """Return what must be the same in all variants."""
        tree = each.model_dump(mode="json", exclude=_FREE)
        for field in _LEARNING:
            del tree["modalities"][stage][field]
        return tree

    if fields := differences(fixed(first), fixed(recipe)):
        raise RecipeError(
            f"{variant} must differ from the first one in how {stage!r} is learnt alone, got "
            f"another value of {', '.join(fields[:3])}; leave it out, or make a curve of its own"
        )


def _check_run(run: RunDirectory, recipe: Recipe) -> None:
    """Refuse a run that does not hold the stages before the last as the recipe has them.

    Raises:
        RecipeError: If there are no such stages.
        RunError: If it is not finished, lacks one, is of another recipe, or has changed since.
    """
    names, before = recipe.curriculum[:-1], run.recipe()
    if not names:
        raise RecipeError(
            f"--run must go with a stage that has others before it, got {recipe.curriculum[0]!r}, "
            "which is the first; leave out --run"
        )
    finished = run.finished(before) if run.results.is_file() else []
    if missing := [name for name in names if name not in finished]:
        raise RunError(
            f"{run.root} must be a finished run with the stages before {recipe.curriculum[-1]!r}, "
            f"got none of stage {missing[0]!r}; finish it with pathweave evolve, or leave out --run"
        )
    count = len(names)
    free = {"name", "quick", "bad_samples", "evaluation"}
    cut = (_unscored(each.cut(count), names) for each in (before, recipe))
    then, now = (each.model_dump(mode="json", exclude=free) for each in cut)
    if fields := differences(then, now):
        raise RunError(
            f"{run.root} must be a run of the recipe up to {names[-1]!r}, got another value of "
            f"{', '.join(fields[:3])}; correct the recipe, or leave out --run to learn them anew"
        )
    if METHODS[recipe.method.name].shares and len(before.curriculum) > count:
        raise RunError(
            f"{run.root} must end with stage {names[-1]!r}, as method {recipe.method.name!r} "
            f"changes the connector in every stage, got {before.curriculum[-1]!r} behind it; "
            "leave out --run"
        )


def _sizes(recipe: Recipe) -> dict[str, int]:
    """Return how many samples each training set of the last stage has to draw from."""
    sizes = {}
    for name, data in recipe.modalities[recipe.curriculum[-1]].train.items():
        limits = (recipe.limit_of(data), data.draw, len(Manifest(data.manifest)))
        sizes[name] = min(limit for limit in limits if limit is not None)
    return sizes


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many samples to draw of each set: in proportion, and never fewer of more in all.

    Args:
        sizes: Samples of each set.
        count: Samples of all together, at most as many as there are.

    Example:
        >>> shares({"qa": 600, "caption": 300}, 10), shares({"qa": 5, "caption": 1}, 1)
        ({'qa': 7, 'caption': 3}, {'qa': 1, 'caption': 0})
    """
    # The method of Webster and Sainte-Lague, which is known never to take back what it gave.
    places = [((k + 0.5) / size, name) for name, size in sizes.items() for k in range(size)]
    given = [name for _, name in sorted(places)[:count]]
    return {name: given.count(name) for name in sizes}


def _recipe_of_cell(recipe: Recipe, drawn: Mapping[str, int], seed: int) -> Recipe:
    """Return the recipe with so many samples of the last stage's sets; it alone is scored."""
    *earlier, stage = recipe.curriculum
    modality = recipe.modalities[stage]
    train = {
        name: data.model_copy(update={"draw": drawn[name]})
        for name, data in modality.train.items()
        if drawn[name]
    }
    alone = _unscored(recipe, earlier)
    modalities = {**alone.modalities, stage: modality.model_copy(update={"train": train})}
    return alone.model_copy(update={"seed": seed, "modalities": modalities})


def _unscored(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return a recipe without the test sets of some stages."""
    modalities = {
        name: modality.model_copy(update={"test": {}}) if name in names else modality
        for name, modality in recipe.modalities.items()
    }
    return recipe.model_copy(update={"modalities": modalities})
