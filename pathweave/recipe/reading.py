"""Recipes as files and overrides: reading, laying one over another, writing.

What a recipe may hold is in ``schema``.
"""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pathweave.bases.hub import is_hub_id
from pathweave.decoders import build_decoder
from pathweave.encoders import check_encoder
from pathweave.errors import RecipeError
from pathweave.methods import METHODS
from pathweave.metrics import METRICS
from pathweave.parts import is_own
from pathweave.recipe.schema import Recipe, explain
from pathweave.recipe.shipped import find_recipe, shipped_recipes
from pathweave.validation import nearest


class _Loader(yaml.SafeLoader):
    """Refuses a field that stands twice, of which YAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 (of yaml)
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{key.value} twice, in line {key.start_mark.line + 1}; remove one"
                    raise yaml.composer.ComposerError(problem=problem)
                seen.add(key.value)
        return node


WEIGHT_OPTIONS = ("directory", "model")  # of encoders: where they are read from


def load_recipe(path: Path, overrides: dict[str, Any] | None = None, quick: bool = False) -> Recipe:
    """Read a recipe from YAML or JSON.

    A field ``extends`` names another recipe, relative to the file or one that ships: that one
    holds, with the fields that are given here changed.

    Args:
        path: The file, or the name of a recipe that ships (``find_recipe``).
        overrides: Values by dotted field, such as ``{"training.lr": 1e-3}``.
        quick: Apply the recipe's own ``quick`` overrides first.

    Raises:
        RecipeError: If the file is missing, may be either of two, is malformed, extends one that is
            missing or itself, or holds an unknown field or a bad value; or if it names code that is
            not trusted, does not exist, or is no such part.
    """
    path = find_recipe(path)
    tree = _read_tree(path)
    if quick:
        if not tree.get("quick"):
            raise RecipeError(f"{path} must have a section quick: for --quick, got none")
        overrides = {**tree["quick"], **(overrides or {})}
    for field, value in (overrides or {}).items():
        set_field(tree, field, value)
    recipe = parse_recipe(tree, str(path))
    recipe = parse_recipe(_resolved(recipe, path.parent.absolute()))
    _check_own(recipe)
    return recipe


def _check_own(recipe: Recipe) -> None:
    """Check that parts of the user's own are there and are what they are named as.

    Raises:
        RecipeError: If one is not, takes other options, or code is not trusted.
    """
    method = recipe.method
    if is_own(method.name) and METHODS[method.name].options_in(method) is None and method.own:
        raise RecipeError(
            f"method.own must be left out, as {method.name!r} has no options, got {method.own}"
        )
    for modality in recipe.modalities.values():
        for metric in filter(is_own, (test_set.metric for test_set in modality.test.values())):
            METRICS[metric]
        if not modality.reads:
            decoder, encoder = modality.parts
            if is_own(decoder.kind):
                build_decoder(decoder.kind, **decoder.options)
            if is_own(encoder.kind):
                check_encoder(encoder.kind, encoder.options)


def read_yaml(path: Path, what: str, field: str) -> dict[str, Any]:
    """Return the plain values of a YAML file of ours.

    Args:
        path: The file.
        what: What it is to be, for messages.
        field: One of the fields that it is to hold, for messages.

    Raises:
        RecipeError: If it is missing, no YAML, holds a field twice, or holds no fields.
    """
    try:
        tree = yaml.load(path.read_bytes(), Loader=_Loader)
    except OSError as error:
        named = path.as_posix().removesuffix(path.suffix).removeprefix("recipes/")
        raise RecipeError(
            f"{path} must be {what}, got {error.strerror}; pathweave recipes lists those that "
            f"ship{nearest(named, shipped_recipes())}"
        ) from error
    # Lists in lists without end are too deep for the parser.
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{path} must be YAML, got {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} must hold fields such as {field}, got {type(tree).__name__}")
    return tree


def _read_tree(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain values of a recipe, laid over those of the recipe that it extends."""
    tree = read_yaml(path, "a recipe", "modalities:")
    name = tree.pop("extends", None)
    if name is None:
        return tree
    here = Path(os.path.normpath(path.absolute()))
    extended = Path(os.path.normpath(find_recipe(Path(str(name)), here.parent)))
    chain = (*extended_by, here)
    if extended in chain:
        names = " -> ".join(file.name for file in (*chain, extended))
        raise RecipeError(f"extends must not lead back to a recipe before it, got {names}; end it")
    if not isinstance(name, str) or not extended.is_file():
        raise RecipeError(
            f"{path}: extends must name a recipe, relative to the file, or one that ships, got "
            f"{name!r}; correct it"
        )
    # By itself, so that an error in it is told of it, and its paths are relative to it.
    recipe = parse_recipe(_read_tree(extended, chain), str(extended))
    return _laid_over(_resolved(recipe, extended.parent), tree)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two trees as one; a decoder or an encoder (which has a kind) is taken whole."""
    merged = dict(below)
    for field, value in above.items():
        old = below.get(field)
        are_trees = isinstance(old, dict) and isinstance(value, dict) and "kind" not in value
        merged[field] = _laid_over(old, value) if are_trees else value  # type: ignore[arg-type]
    return merged


def _resolved(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Return what a recipe says with absolute paths, so that it can be stored elsewhere."""
    tree = recipe.model_dump(exclude_unset=True)
    for modality in tree["modalities"].values():
        for data in (*modality.get("train", {}).values(), *modality.get("test", {}).values()):
            data["manifest"] = str(directory / data["manifest"])
        encoder = modality.get("encoder") or {}
        for option in WEIGHT_OPTIONS:
            place = encoder.get(option)
            # Weights that are put there later must not make the recipe another one.
            if isinstance(place, str) and ((directory / place).exists() or not is_hub_id(place)):
                encoder[option] = str(directory / place)
    for field in ("base", "llm"):
        if (name := getattr(recipe, field)) and (directory / name).is_dir():
            tree[field] = str(directory / name)
    return tree


def parse_recipe(tree: Any, source: str = "recipe") -> Recipe:  # noqa: ANN401
    """Check a recipe given as plain values.

    Raises:
        RecipeError: Naming the field, the rule and, for a misspelt field, the nearest valid one.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{source}: {explain(error, Recipe)}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``field=value`` as given to ``--set``; the value is read as YAML.

    Raises:
        RecipeError: If there is no ``=``, or the value is no YAML.
    """
    field, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set must be given as field=value, got {text!r}")
    try:
        return field.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"--set {field}: the value must be YAML, got {value!r}") from error


def set_field(tree: dict[str, Any], field: str, value: Any) -> None:  # noqa: ANN401
    """Set a dotted field of a recipe as plain values.

    Raises:
        RecipeError: If a part of the name stands for a value.
    """
    *parents, last = field.split(".")
    for name in parents:
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict):
            raise RecipeError(f"{field} must name a field, got {name!r}, which holds a value")
    tree[last] = value


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as JSON that ``load_recipe`` reads back."""
    return json.dumps(recipe.model_dump(mode="json"), indent=2)
