"""Check for the pretrained parts of a recipe on this machine; nothing is loaded or fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from pathweave.bases.fetch import ready_dir
from pathweave.bases.hub import cached_snapshot, is_remote
from pathweave.bases.llm import CONFIG, load_tokenizer, read_config
from pathweave.bases.mini import LLM, TEXT
from pathweave.bases.pretrained import BLIP2, INSTRUCTBLIP, QFORMER_TOKENIZER
from pathweave.bases.shards import Shards
from pathweave.bases.weights_manifest import find_weights
from pathweave.encoders import check_encoder, weights_of
from pathweave.encoders.eva_weights import LAVIS
from pathweave.encoders.published import Published
from pathweave.errors import FetchError, PathWeaveError, RecipeError
from pathweave.model.base import LLM_DIRECTORY, TEXT_DIRECTORY
from pathweave.recipe.schema import Component, Recipe
from pathweave.validation import unknown

_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


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
        found.append(_presence(what, str(place), _check_encoder, part))
    return found


def llm_files(recipe: Recipe) -> tuple[Path, PretrainedConfig]:
    """Return the directory of a recipe's language model, and its configuration.

    Raises:
        FetchError: If they are not on this machine.
    """
    if recipe.llm is None and recipe.base == "mini":
        _check_fetched(LLM)
        directory = ready_dir(LLM)
        assert directory is not None  # or it would have been refused
    else:
        directory = _local(recipe.llm or recipe.base)
        if recipe.llm is None and not (directory / CONFIG).is_file():
            directory /= LLM_DIRECTORY
    config = read_config(directory)
    return directory, getattr(config, "text_config", config)


def is_published_base(name: str) -> bool:
    """Return whether a base is an InstructBLIP or BLIP-2, which comes with a path of its own."""
    if name == "mini" or (Path(name) / "base.json").is_file():
        return False
    return is_remote(name) or (Path(name) / CONFIG).is_file()


def hub_id(part: Component) -> str | None:
    """Return the identifier of the model of the hub that an encoder is read from, if it is one."""
    # Of the published encoders this one alone is also read from a whole model.
    is_read = "model" in part.options or weights_of(part.kind) is LAVIS
    name = str(part.options.get("model") or part.options.get("directory") or "")
    return name if is_read and is_remote(name) else None


def _presence(part: str, place: str, check: Callable[..., None], *what: object) -> Presence:
    try:
        check(*what)
    except PathWeaveError as error:
        return Presence(part, place, str(error))
    return Presence(part, place, None)


def _base(name: str) -> list[Presence]:
    if name != "mini":
        return [_presence("base", name, _check_base, name)]
    parts = {"base's language model": LLM, "base's Q-Former": TEXT}
    return [_presence(part, weights, _check_fetched, weights) for part, weights in parts.items()]


def _check_fetched(name: str) -> None:
    if ready_dir(name) is None:
        size = find_weights(name).sources[0].num_bytes / 1e6
        raise FetchError(
            f"weights {name} ({size:,.0f} MB) must be in the cache, got none; run pathweave fetch "
            f"{name}, or let the run fetch them"
        )


def _check_base(name: str) -> None:
    if not Path(name).is_dir() and not is_remote(name):
        raise RecipeError(
            f"{unknown('base', name, ['mini'])}, or a directory or the hub id (owner/name) of a "
            "base"
        )
    directory = _local(name)
    if not (directory / CONFIG).is_file():
        _check_saved_base(directory)
        return
    config = read_config(directory)
    if config.model_type not in (INSTRUCTBLIP, BLIP2):
        raise RecipeError(
            f"{directory} must hold an InstructBLIP or a BLIP-2, got {config.model_type!r}; name "
            "one of these as base, and any causal language model as llm beside it"
        )
    Shards(directory)
    load_tokenizer(directory)
    if config.model_type == INSTRUCTBLIP:
        load_tokenizer(directory / QFORMER_TOKENIZER)


def _check_saved_base(directory: Path) -> None:
    for file in ("base.json", "connector.safetensors"):
        if not (directory / file).is_file():
            raise FetchError(f"{directory} must hold {file}, got none; copy the whole directory")
    _check_llm(str(directory / LLM_DIRECTORY))
    if (directory / TEXT_DIRECTORY).is_dir():
        load_tokenizer(directory / TEXT_DIRECTORY)


def _check_llm(name: str) -> None:
    directory = _local(name)
    read_config(directory)
    Shards(directory)
    load_tokenizer(directory)


def _check_encoder(part: Component) -> None:
    check_encoder(part.kind, part.options)
    weights = weights_of(part.kind)
    if "model" in part.options:
        _check_model(_local(part.options["model"]))
    elif "directory" in part.options:
        _check_directory(weights, str(part.options["directory"]))
    elif isinstance(weights, str):
        _check_fetched(weights)


def _check_model(directory: Path) -> None:
    read_config(directory)
    Shards(directory)
    if not any((directory / file).is_file() for file in _PROCESSORS):
        raise FetchError(
            f"{directory} must hold the settings of a processor ({' or '.join(_PROCESSORS)}), got "
            "none; download the model's small files too"
        )


def _check_directory(weights: str | Published | None, name: str) -> None:
    is_model = weights is LAVIS and ((Path(name) / CONFIG).is_file() or is_remote(name))
    if isinstance(weights, Published) and not is_model:
        weights.find(Path(name))
    else:
        Shards(_local(name))


def _local(name: str) -> Path:
    """Return the directory of a model: itself, or a whole copy in the hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    try:
        if not is_remote(name):
            raise FileNotFoundError(name)
        return cached_snapshot(name)
    except FileNotFoundError as error:
        raise FetchError(
            f"{name} must be a directory, or in the cache of the Hugging Face hub, got neither; "
            "connect to the hub, from which the run fetches it, or put its files (config.json, "
            "model*.safetensors with the index, tokenizer or preprocessor_config.json) into a "
            "directory and name that"
        ) from error
