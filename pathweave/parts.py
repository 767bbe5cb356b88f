"""Parts that recipes name: those of the package by a word, a user's own as ``package.module:name``.

Naming code runs it, so a recipe of another hand that does is refused until its reader says
``--trust-code``. A user's part is known by its source: what was made with it can tell that it is
another now.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pathweave.errors import RecipeError
from pathweave.storage.atomic import sha256_bytes
from pathweave.validation import unknown

TRUSTED = "PATHWEAVE_TRUST_CODE"  # in the environment, for processes that are started by this one
Part = TypeVar("Part")


def trust_code() -> None:
    """Run code that recipes and runs name, from now on; the command line's ``--trust-code``."""
    os.environ[TRUSTED] = "1"


def is_own(name: str) -> bool:
    """Return whether a part is a user's own, ``package.module:name``."""
    return ":" in name


class Parts(dict[str, Part]):
    """Parts of a kind by name. Iterating gives those of the package; a user's own are found too.

    Args:
        what: Their kind, for messages: ``encoder``.
        ours: Those of the package.
        rule: What a part must be, for messages: ``a subclass of pathweave.decoders.Decoder``.
        fits: Whether an object is such a part.

    Example:
        >>> Parts("metric", {"exact": 1}, "a number", lambda part: isinstance(part, int))["exact"]
        1
    """

    def __init__(
        self, what: str, ours: Mapping[str, Part], rule: str, fits: Callable[[Any], bool]
    ) -> None:
        super().__init__(ours)
        self.what, self.rule, self.fits = what, rule, fits

    def __missing__(self, name: str) -> Part:
        """Return a part of a user.

        Raises:
            RecipeError: If the name is neither that of a part of the package nor of code; if code
                is not trusted, does not exist or fails, or is no such part.
        """
        if not is_own(name):
            raise RecipeError(
                f"{unknown(self.what, name, self)}; one of your own is package.module:name"
            )
        part = _imported(f"{self.what} {name!r}", name)
        if not self.fits(part):
            raise RecipeError(
                f"{self.what} {name!r} must be {self.rule}, got {_described(part)}; "
                "see docs/own_parts.md"
            )
        return part

    def check(self, name: str) -> str:
        """Return a name that may be one of a part; what it names is not looked at.

        Raises:
            ValueError: If it is neither the name of a part of the package nor of code.
        """
        if name not in self and not is_own(name):
            raise ValueError(unknown(self.what, name, self))
        return name


def sources_of(names: Iterable[str]) -> dict[str, str]:
    """Return a hash of the source of each part that is a user's own, by name: of its one file."""
    sources = {}
    for name in filter(is_own, names):
        part = _imported(name, name)
        is_definition = inspect.isclass(part) or inspect.isfunction(part)
        sources[name] = source_of(part if is_definition else sys.modules[name.partition(":")[0]])
    return sources


def source_of(part: Any) -> str:  # noqa: ANN401 (a class, a function, a module)
    """Return a hash of the file in which a part is written; of the package's own, nothing."""
    module = inspect.getmodule(part)
    if module is None or module.__name__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    file = getattr(module, "__file__", None)  # there is none of what is typed in
    return sha256_bytes(Path(file).read_bytes()) if file else ""


def told(error: Exception) -> str:
    """Return what a user's code has raised, and where, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message} ({Path(place.filename).name}, line {place.lineno})"


def check_sources(names: Iterable[str], learnt: Mapping[str, str], path: str) -> None:
    """Check that parts are what they were when a path was learnt.

    Args:
        names: The parts that are used.
        learnt: Hash of the source of each, as kept with the path.
        path: Name of the path, for messages.

    Raises:
        RecipeError: If the source of one is another now.
    """
    for name, found in sources_of(name for name in names if name in learnt).items():
        if found != learnt[name]:
            raise RecipeError(
                f"{name} must be what it was when path {path!r} was learnt (source "
                f"{learnt[name][:12]}...), got {found[:12]}...; restore the file, or learn the "
                "path again"
            )


def _imported(title: str, name: str) -> Any:  # noqa: ANN401 (what a module holds)
    if not os.environ.get(TRUSTED):
        raise RecipeError(
            f"{title} is code and must be trusted to be run, got no --trust-code; read the code, "
            "then add it"
        )
    module, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # last, so that no file there hides an installed module
    try:
        found = import_module(module)
        for each in attribute.split("."):
            found = getattr(found, each)
    except Exception as error:  # importing runs whatever is written there
        raise RecipeError(
            f"{title} must be importable, got {told(error)}; install its package, or run the "
            "command in the directory of its file"
        ) from error
    return found


def _described(part: object) -> str:
    return f"the class {part.__name__}" if inspect.isclass(part) else type(part).__name__
