"""Recipes that ship, found by name; the data and the examples beside them.

An installed package carries them in ``pathweave/shipped``; in a clone they lie beside the package.
"""

import re
from itertools import takewhile
from pathlib import Path

from pathweave.errors import RecipeError

_PACKAGE = Path(__file__).parents[1]
_END_OF_SENTENCE = re.compile(r"(?<=[.?]) (?=[A-Z(])")
SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent


def shipped_recipes() -> dict[str, Path]:
    """Return the files of all recipes and grids that ship, by name.

    Example:
        >>> shipped_recipes()["methods/ewc"].name
        'ewc.yaml'
    """
    root = SHIPPED / "recipes"
    files = sorted(root.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in files}


def describe_shipped() -> list[dict[str, str]]:
    """Return of each file that ships its ``name``, ``file``, ``command`` and ``title``.

    The command is the one that runs it: ``evolve`` a recipe, ``compare`` a grid.
    """
    described = []
    for name, file in shipped_recipes().items():
        text = file.read_text(encoding="utf-8")
        command = "compare" if re.search("^recipe:", text, re.MULTILINE) else "evolve"
        head = takewhile(lambda line: line.startswith("# "), text.splitlines())
        title = _END_OF_SENTENCE.split(" ".join(line.removeprefix("# ") for line in head))[0]
        described.append({"name": name, "command": command, "title": title, "file": str(file)})
    return described


def find_recipe(name: Path, directory: Path = Path()) -> Path:
    """Return the file that a recipe or a grid is named by: a path, or the name of one that ships.

    A file of the user's is never hidden: what there is under exactly this path is meant, and a name
    beside which there is ``NAME.yaml`` is refused, unless that is the one that ships.

    Args:
        name: The path or the name.
        directory: What the path is relative to.

    Raises:
        RecipeError: If it may be either of two files.
    """
    path = directory / name
    shipped = shipped_recipes().get(name.as_posix())
    if shipped is None or (path.exists() and not path.is_dir()):
        return path
    own = path.with_name(f"{path.name}.yaml")
    if own.exists() and not own.samefile(shipped):
        raise RecipeError(
            f"{name} must be one recipe, got the one that ships and {own}; give {own}, or {shipped}"
        )
    return shipped
