"""Methods of learning the next modality, one file each: a file that declares ``METHOD``."""

from collections.abc import Collection, Sequence
from importlib import import_module
from pkgutil import iter_modules

from pathweave.errors import RecipeError
from pathweave.methods.lesson import Method
from pathweave.methods.path import spec_of
from pathweave.methods.settings import RunSettings
from pathweave.model.pathweave import PathWeave
from pathweave.parts import Parts

_files = {file.name: import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)}
METHODS: Parts[Method] = Parts(
    "method",
    {name: module.METHOD for name, module in _files.items() if hasattr(module, "METHOD")},
    "a pathweave.methods.Method",
    lambda part: isinstance(part, Method),
)


def method_of(recipe: RunSettings, name: str) -> Method:
    """Return how a stage learns its modality; the one that makes the base does the same in all."""
    makes_base = recipe.training_of(name).connector
    return METHODS["pathweave" if makes_base else recipe.method.name]


def stages_of(recipe: RunSettings, ready: Collection[str] = ()) -> list[tuple[str, ...]]:
    """Return the modalities that each stage learns: one, or after the base all at once.

    Args:
        recipe: The run.
        ready: Modalities that the base was pretrained with.
    """
    names = recipe.curriculum
    if not METHODS[recipe.method.name].at_once:
        return [(name,) for name in names]
    is_base = [recipe.training_of(name).connector or name in ready for name in names]
    count = is_base.index(False) if False in is_base else len(names)
    return [*((name,) for name in names[:count]), *([names[count:]] if names[count:] else [])]


def check_stages(model: PathWeave, recipe: RunSettings, learnt: Sequence[str]) -> None:
    """Refuse stages that train what the base does not have, before any is learnt.

    Raises:
        RecipeError: If one trains a connector that the base's paths do not share.
        PathError: If ``method.sites`` names no hosts of use.
    """
    for name in learnt:
        method, connector = method_of(recipe, name), recipe.training_of(name).connector
        if not model.base.shares_connector and (connector or method.shares):
            raise RecipeError(
                f"stage {name!r} must leave a shared connector alone, as paths on a vision LLM "
                f"have their own, got method {recipe.method.name!r} and training.connector "
                f"{connector}; choose pathweave, adapters or independent, without it"
            )
        if not method.trains and not connector:  # but adapters
            model.paths.hosts_of(spec_of(model, recipe, name, 1, recipe.method.rank))
