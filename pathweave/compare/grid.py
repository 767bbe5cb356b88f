"""Declaration of a grid of runs, a small YAML file: methods x orders x seeds over one recipe.

A cell of the grid is an ordinary run; its recipe is the grid's with the overrides of its method,
the curriculum of its order and its seed.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from pathweave.data.manifest import manifest_sha256
from pathweave.data.tar_shards import is_sharded
from pathweave.errors import ManifestError, RecipeError
from pathweave.methods.settings import Training
from pathweave.model.paths import NAME
from pathweave.recipe.reading import load_recipe, read_yaml
from pathweave.recipe.schema import Recipe
from pathweave.recipe.shipped import find_recipe
from pathweave.storage.atomic import sha256_bytes, sha256_file
from pathweave.validation import explain, unknown

ABOUT = "grid.json"

# What a recipe may differ in and still give the same results.
_LABELS = {"name", "quick", "bad_samples"}


def _is_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"a name must be lower-case letters, digits and underscores, got {name!r}")
    return name


def _as_order(value: object) -> object:
    return {"curriculum": value} if isinstance(value, list) else value


Name = Annotated[str, AfterValidator(_is_name)]


class Order(BaseModel, extra="forbid", frozen=True):
    """A sequence of modalities, and what is learnt in it; in YAML also the list alone."""

    curriculum: tuple[str, ...] = Field(min_length=1, description="The modalities, in order.")
    methods: tuple[str, ...] | None = Field(None, description="Only these methods; null is all.")
    lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="Learn the last modality also straight after so many of the first ones: how "
        "much does it gain from the length of the sequence?",
    )


class Declaration(BaseModel, extra="forbid", frozen=True):
    """The file of a grid.

    Example:
        >>> declared = Declaration.model_validate({
        ...     "name": "demo", "recipe": "recipe.yaml", "seeds": [0, 1],
        ...     "methods": {"pathweave": {}, "no_gate": {"method.gate": None}},
        ...     "orders": {"main": ["see", "hear"]}})
        >>> declared.reference
        'pathweave'
    """

    name: str = Field(
        pattern="[A-Za-z0-9]", description="Name of the grid, for titles and the files of a report."
    )
    recipe: str = Field(description="The recipe, relative to this file, or one that ships.")
    set: dict[str, Any] = Field({}, description="Overrides for all cells, by dotted field.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        min_length=1, description="Seeds of the runs."
    )
    methods: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        description="Methods by name: overrides of the recipe by dotted field, or of another one "
        "that is named under `recipe`.",
    )
    orders: dict[Name, Annotated[Order, BeforeValidator(_as_order)]] = Field(
        min_length=1, description="Orders by name; the first is that of the main table."
    )
    reference: str = Field(
        default_factory=lambda known: next(iter(known.get("methods", ())), ""),
        description="Method the others are compared with; the first.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Declaration":
        known = list(self.methods)
        if self.reference not in known:
            raise ValueError(unknown("reference", self.reference, known))
        for name, order in self.orders.items():
            for method in order.methods or ():
                if method not in known:
                    raise ValueError(unknown(f"a method of orders.{name}", method, known))
            longest = len(order.curriculum) - 2
            for length in order.lengths:
                if length > longest:
                    raise ValueError(
                        f"a length of orders.{name} must be in [1, {longest}], got {length}"
                    )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different, got {list(self.seeds)}")
        return self

    def curricula(self) -> dict[str, Order]:
        """Return all orders by name, with those that ``lengths`` asks for."""
        named: dict[str, Order] = {}
        for name, order in self.orders.items():
            named[name] = order
            for length in order.lengths:
                shorter = (*order.curriculum[:length], order.curriculum[-1])
                named[f"{name}_after{length}"] = Order(curriculum=shorter, methods=order.methods)
        return named


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        method: Name of the method in the grid.
        order: Name of the order.
        seed: Seed.
        recipe: The whole recipe.
    """

    method: str
    order: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return the name, unique in the grid and fit for a file."""
        return f"{self.method}-{self.order}-seed{self.seed}"

    def directory(self, out: Path) -> Path:
        """Return the run's directory."""
        return out / "runs" / self.method / self.order / f"seed-{self.seed}"

    def result(self, out: Path) -> Path:
        """Return the file of its result."""
        return out / "results" / f"{self.name}.json"


class About(BaseModel, extra="forbid"):
    """What a report knows of a grid besides the results; the file ``grid.json`` beside them."""

    name: str
    reference: str
    methods: list[str]
    orders: dict[str, list[str]]
    seeds: list[int]
    num_cells: int


@dataclass(frozen=True)
class Grid:
    """A grid with all its cells.

    Attributes:
        declared: The file.
        cells: The cells, order after order and in these seed after seed, so that the main table is
            there early, and whole with each seed.
    """

    declared: Declaration
    cells: tuple[Cell, ...]

    def about(self) -> About:
        """Return what a report must know besides the results."""
        told = self.declared.model_dump(mode="json", include={"name", "reference", "seeds"})
        orders = {name: list(o.curriculum) for name, o in self.declared.curricula().items()}
        methods, num_cells = list(self.declared.methods), len(self.cells)
        return About(**told, methods=methods, orders=orders, num_cells=num_cells)


def load_grid(path: Path) -> Grid:
    """Read the file of a grid, or one that ships by its name, and the recipes of all its cells.

    Raises:
        RecipeError: If the file or its recipe is missing or malformed, or a cell's recipe is not
            valid; the message names the cell.
    """
    path = find_recipe(path)
    tree = read_yaml(path, "the file of a grid", "methods:")
    try:
        declared = Declaration.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Declaration)}") from error
    cells = tuple(
        Cell(method, order_name, seed, _recipe(declared, method, order, seed, path))
        for order_name, order in declared.curricula().items()
        for seed in declared.seeds
        for method in declared.methods
        if order.methods is None or method in order.methods
    )
    return Grid(declared, cells)


def _recipe(declared: Declaration, method: str, order: Order, seed: int, grid: Path) -> Recipe:
    overrides = {**declared.set, **declared.methods[method]}
    file = find_recipe(Path(str(overrides.pop("recipe", declared.recipe))), grid.parent)
    for field, own in (("seed", "seeds"), ("curriculum", "orders")):
        if field in overrides:
            raise RecipeError(
                f"{grid}: {field} must be given under {own}:, got an override of method "
                f"{method!r}; remove it"
            )
    try:
        return load_recipe(file, {**overrides, "curriculum": list(order.curriculum), "seed": seed})
    except RecipeError as error:
        raise RecipeError(f"{grid}: method {method!r}: {error}") from error


def recipe_hash(recipe: Recipe) -> str:
    """Return a SHA-256 of all that decides the results of a recipe.

    It does not depend on where files are: a manifest counts by its content, the directory of a
    base by its name. Fields at their default value do not count, so that a field added to the
    schema leaves the hashes of earlier recipes as they are.

    Raises:
        ManifestError: If a manifest cannot be read.
    """
    used = recipe.cut(len(recipe.curriculum))
    tree = used.model_dump(mode="json", exclude=_LABELS, exclude_defaults=True)
    for modality in tree["modalities"].values():
        own = modality.pop("training", {})
        if told := {f: v for f, v in own.items() if not _is_default(f, v, used.training)}:
            modality["training"] = told
        for data in (*modality.get("train", {}).values(), *modality.get("test", {}).values()):
            data["manifest"] = _content_hash(Path(data["manifest"]))
    for field in ("base", "llm"):
        if (name := tree.get(field)) and Path(name).is_dir():
            tree[field] = Path(name).name
    return sha256_bytes(json.dumps(tree, sort_keys=True).encode())


def _is_default(field: str, value: object, training: Training) -> bool:
    """Return whether a modality's value and that of all others are the default."""
    return value == getattr(training, field) == Training.model_fields[field].default


def _content_hash(file: Path) -> str:
    if is_sharded(file):
        return manifest_sha256(file)
    try:
        stat = file.stat()
        return _hash_once(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise ManifestError(
            f"{file} must be a manifest, got {error.strerror}; correct the recipe of the grid"
        ) from error


@lru_cache(maxsize=1024)
def _hash_once(file: Path, changed: int, size: int) -> str:
    return sha256_file(file)
