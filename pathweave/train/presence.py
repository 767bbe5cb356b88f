"""Check for the pretrained parts of a recipe on this machine; nothing is loaded or fetched."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pathweave.bases.fetch import fetched_dir
from pathweave.bases.hub import is_remote
from pathweave.bases.llm import CONFIG, load_tokenizer, read_config
from pathweave.bases.mini import LLM, PARTS, TEXT, is_connector
from pathweave.bases.pretrained import open_pretrained
from pathweave.bases.shards import Shards
from pathweave.bases.vision_llm import check_vision_llm, is_vision_llm
from pathweave.encoders import BASE, check_files
from pathweave.errors import PathWeaveError
from pathweave.estimate.encoders import tower_of
from pathweave.model.base import DESCRIPTION, LLM_DIRECTORY, open_directory
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import model_directory


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
    if recipe.base == "mini":
        found = [_presence(part, name, fetched_dir, name) for part, name in PARTS.items()]
    else:
        found = [_presence("base", recipe.base, _check_base, recipe.base)]
    if recipe.llm is not None:
        found.append(_presence("llm", recipe.llm, _check_llm, recipe.llm))
    readers: dict[str, list[str]] = defaultdict(list)
    for name in recipe.media:
        readers[recipe.modalities[name].parts[1].model_dump_json()].append(name)
    for names in readers.values():
        _, part = recipe.modalities[names[0]].parts
        place = part.options.get("directory") or part.options.get("model") or part.kind
        what = f"encoder of {', '.join(names)}"
        if part.kind == BASE:
            found.append(_presence(what, recipe.base, tower_of, recipe.base, part.options))
            continue
        found.append(_presence(what, str(place), check_files, part.kind, part.options))
    return found


def llm_directory(recipe: Recipe) -> Path:
    """Return the directory of a recipe's language model, or of the base that it is in.

    Raises:
        FetchError: If they are not on this machine.
    """
    if recipe.llm is None and recipe.base == "mini":
        return fetched_dir(LLM)
    if recipe.llm is not None:
        return model_directory("llm", recipe.llm, fetch=False)
    directory = model_directory("base", recipe.base, fetch=False)
    if is_connector(directory):
        return fetched_dir(LLM)
    return directory if (directory / CONFIG).is_file() else directory / LLM_DIRECTORY


def is_published_base(name: str) -> bool:
    """Return whether a base is an InstructBLIP or BLIP-2, which comes with a path of its own."""
    if name == "mini" or (Path(name) / DESCRIPTION).is_file():
        return False
    if is_vision_base(name):
        return False
    return is_remote(name) or (Path(name) / CONFIG).is_file()


def is_vision_base(name: str) -> bool:
    """Return whether a base is a vision LLM; one of the hub that is not here is taken for none."""
    if name == "mini":
        return False
    try:
        directory = model_directory("base", name, fetch=False)
        return (directory / CONFIG).is_file() and is_vision_llm(read_config(directory))
    except PathWeaveError:
        return False


def _presence(part: str, place: str, check: Callable[..., object], *what: object) -> Presence:
    try:
        check(*what)
    except PathWeaveError as error:
        return Presence(part, place, str(error))
    return Presence(part, place, None)


def _check_base(name: str) -> None:
    directory = model_directory("base", name, fetch=False)
    if (directory / CONFIG).is_file():
        if is_vision_llm(read_config(directory)):
            check_vision_llm(directory)
        else:
            open_pretrained(directory)
    elif is_connector(directory):
        fetched_dir(LLM)
        fetched_dir(TEXT)
    else:
        open_directory(directory)
        _check_llm(str(directory / LLM_DIRECTORY))


def _check_llm(name: str) -> None:
    directory = model_directory("llm", name, fetch=False)
    read_config(directory)
    Shards(directory)
    load_tokenizer(directory)
