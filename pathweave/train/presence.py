"""Check for the pretrained parts of a recipe on this machine; nothing is loaded or fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from pathweave.bases.fetch import fetched_dir
from pathweave.bases.hub import is_remote, local_directory
from pathweave.bases.llm import CONFIG, load_tokenizer, read_config
from pathweave.bases.mini import LLM, PARTS
from pathweave.bases.pretrained import open_pretrained
from pathweave.bases.shards import Shards
from pathweave.encoders import check_files
from pathweave.errors import PathWeaveError, RecipeError
from pathweave.model.base import LLM_DIRECTORY, open_directory
from pathweave.recipe.schema import Component, Recipe
from pathweave.validation import unknown


@dataclass(frozen=True)
class Presence:
    """Whether weights are here.

    Attributes:
        part: What they are for.
        place: Name, directory or hub identifier.
        problem: What is missing and how to get it; None if all is here.
    """

    part: str
    place: str
    problem: str | None


def check_weights(recipe: Recipe) -> list[Presence]:
    """Return the state of everything pretrained that a recipe names, each once."""
    found = _base(recipe.base)
    if recipe.llm is not None:
        found.append(_presence("llm", recipe.llm, _check_llm, recipe.llm))
    readers: dict[str, tuple[Component, list[str]]] = {}
    for name in recipe.media:
        _, part = recipe.modalities[name].parts
        readers.setdefault(part.model_dump_json(), (part, []))[1].append(name)
    for part, names in readers.values():
        place = part.options.get("directory") or part.options.get("model") or part.kind
        what = f"encoder of {', '.join(names)}"
        found.append(_presence(what, str(place), check_files, part.kind, part.options))
    return found


def llm_files(recipe: Recipe) -> tuple[Path, PretrainedConfig]:
    """Return the directory of a recipe's language model, and its configuration.

    Raises:
        FetchError: If they are not on this machine.
    """
    if recipe.llm is None and recipe.base == "mini":
        directory = fetched_dir(LLM)
    else:
        directory = local_directory(recipe.llm or recipe.base)
        if recipe.llm is None and not (directory / CONFIG).is_file():
            directory /= LLM_DIRECTORY
    config = read_config(directory)
    return directory, getattr(config, "text_config", config)


def is_published_base(name: str) -> bool:
    """Return whether a base is an InstructBLIP or BLIP-2, which comes with a path of its own."""
    if name == "mini" or (Path(name) / "base.json").is_file():
        return False
    return is_remote(name) or (Path(name) / CONFIG).is_file()


def _presence(part: str, place: str, check: Callable[..., object], *what: object) -> Presence:
    try:
        check(*what)
    except PathWeaveError as error:
        return Presence(part, place, str(error))
    return Presence(part, place, None)


def _base(name: str) -> list[Presence]:
    if name != "mini":
        return [_presence("base", name, _check_base, name)]
    return [_presence(part, weights, fetched_dir, weights) for part, weights in PARTS.items()]


def _check_base(name: str) -> None:
    if not Path(name).is_dir() and not is_remote(name):
        raise RecipeError(
            f"{unknown('base', name, ['mini'])}, or a directory or the hub id (owner/name) of a "
            "base"
        )
    directory = local_directory(name)
    if (directory / CONFIG).is_file():
        open_pretrained(directory)
    else:
        open_directory(directory)
        _check_llm(str(directory / LLM_DIRECTORY))


def _check_llm(name: str) -> None:
    directory = local_directory(name)
    read_config(directory)
    Shards(directory)
    load_tokenizer(directory)
