"""Loading of a model and its readers from a recipe and a directory."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from pathweave.bases.fetch import fetched_dir, weights_dir
from pathweave.bases.hub import is_remote, local_directory, snapshot
from pathweave.bases.llm import CONFIG, read_config, use_llm
from pathweave.bases.mini import LLM as MINI_LLM
from pathweave.bases.mini import is_connector, load_mini
from pathweave.bases.pretrained import load_pretrained
from pathweave.bases.vision_llm import (
    decoders_of,
    is_vision_llm,
    load_vision_base,
    picture_kind,
    refuse_llm,
)
from pathweave.bases.weights_manifest import find_weights, language_models
from pathweave.data.cache import FeatureCache
from pathweave.data.readers import Readers
from pathweave.decoders import Decoder
from pathweave.encoders import BASE
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.published import device
from pathweave.errors import FetchError, RecipeError, RunError
from pathweave.methods.settings import Reducer
from pathweave.model.base import (
    DESCRIPTION,
    LLM_DIRECTORY,
    Base,
    freeze,
    load_connector,
    load_directory,
    native_dtype,
)
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.schema import Component, Modality, Recipe
from pathweave.runs.connector_directory import load_shared
from pathweave.runs.path_directory import describe_path, load_order, load_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import features_home
from pathweave.storage.tensors import NotFilling, load_exactly
from pathweave.validation import unknown


def load_base(
    kind: str,
    seed: int = 0,
    llm: str | None = None,
    quantise: str | None = None,
    reducer: Reducer | None = None,
    layers: bool = True,
) -> Base:
    """Return a base; what it has no pretrained weights for starts random, from ``seed``.

    Args:
        kind: ``mini``, a directory that holds a base, an InstructBLIP, a BLIP-2 or a vision LLM, or
            the id of one on the hub, from which it is then fetched.
        seed: Seed of the parts that start random.
        llm: Causal language model to take instead of the base's own: a directory, the name of
            weights that can be fetched, or a hub id.
        quantise: ``8bit`` or ``4bit`` to hold the language model's weights in so many bits.
        reducer: Sizes of the Q-Former of each path on a vision LLM; None takes the usual ones.
        layers: Whether the language model is to answer. Otherwise its layers are not loaded, but
            for the few values of the fingerprint: another engine answers.

    Raises:
        RecipeError: If there is no such base, or it is no model of the right kind.
        FetchError: If weights cannot be fetched, or are incomplete.
        PathError: If the directory of a base is incomplete.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    # A bar for loading weights would tear the bars of a run apart.
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    own = None if llm is None else model_directory("llm", llm)
    if kind != "mini":
        directory = model_directory("base", kind)
        if (directory / CONFIG).is_file():
            if is_vision_llm(read_config(directory)):
                refuse_llm(llm, kind)
                if not layers:
                    raise RecipeError(
                        "a language model that is loaded without its layers must read text alone, "
                        f"got the vision LLM {kind!r}, which takes more than embeddings; load it "
                        "whole: ask it in this process, without --engine"
                    )
                return load_vision_base(directory, (reducer or Reducer()).shape, quantise=quantise)
            return load_pretrained(directory, own, quantise=quantise, layers=layers)
        if not (directory / DESCRIPTION).is_file():
            raise FetchError(
                f"{directory} must hold a base ({DESCRIPTION}), or an InstructBLIP, a BLIP-2 or a "
                f"vision LLM ({CONFIG}), got none; copy or download the whole directory"
            )
    if quantise and own is None:
        raise RecipeError(
            "quantise must go with an InstructBLIP or BLIP-2 as base, or with llm, got base "
            f"{kind!r}; leave quantise out"
        )
    if kind == "mini":
        base = load_mini(layers=layers)
    elif is_connector(directory):
        base = load_mini(layers=layers)
        load_connector(base, directory)
    else:
        base = load_directory(directory, native_dtype(), layers)
    if own is not None:
        known = {name: find_weights(name).licence for name in language_models()}
        # These are small: as the small base's, they may be wider than what is stored.
        use_llm(base, own, quantise, native_dtype() if llm in known else None, layers)
        others = {part: of for part, of in base.licences.items() if part not in known}
        name = llm if llm in known else "llm"
        base.licences = {**others, name: known.get(name, "not stated")}
    return base


def model_directory(field: str, name: str, fetch: bool = True) -> Path:
    """Return the directory of a base or a language model.

    Args:
        field: ``base`` or ``llm``, for messages.
        name: The directory, the name of a language model's weights, or the id of a model on the
            hub.
        fetch: Whether to fetch what is not on this machine.

    Raises:
        RecipeError: If it is none of these.
        FetchError: If it is not on this machine, and is not to be fetched or cannot be.
    """
    if Path(name).is_dir():
        return Path(name)
    if field == "llm" and name in language_models():
        return weights_dir(name) if fetch else fetched_dir(name)
    if is_remote(name):
        return snapshot(name) if fetch else local_directory(name)
    if field == "llm":
        what = "llm, where it is no directory or hub id (owner/name),"
        raise RecipeError(unknown(what, name, language_models()))
    raise RecipeError(
        f"{unknown('base', name, ['mini'])}, or a directory or the hub id (owner/name) of a base"
    )


def llm_place(recipe: Recipe) -> str:
    """Return the directory or hub id of a recipe's language model by itself, for other programs.

    It is ``LLM`` where it is but a part of a checkpoint, and has to be saved by itself first.
    """
    if recipe.llm is not None:
        is_known = recipe.llm in language_models()
        return str(fetched_dir(recipe.llm)) if is_known else recipe.llm
    if recipe.base == "mini":
        return str(fetched_dir(MINI_LLM))
    directory = model_directory("base", recipe.base, fetch=False)
    if is_connector(directory):
        return str(fetched_dir(MINI_LLM))
    return str(directory / LLM_DIRECTORY) if (directory / LLM_DIRECTORY).is_dir() else "LLM"


def new_model(recipe: Recipe, layers: bool = True) -> PathWeave:
    """Return the base of a recipe, with cues and with no paths but those it comes with.

    Args:
        recipe: The recipe.
        layers: See ``load_base``.
    """
    cues = {name: modality.cue for name, modality in recipe.modalities.items()}
    reducer = recipe.method.reducer
    base = load_base(recipe.base, recipe.seed, recipe.llm, recipe.quantise, reducer, layers)
    return PathWeave(base, cues)


def placed_model(model: PathWeave, place: torch.device | None = None) -> PathWeave:
    """Return a model on its device.

    Args:
        model: The model.
        place: The device; None is the graphics processor if there is one.

    Raises:
        RunError: If it does not fit there.
    """
    try:
        return model.to(place or device())
    except torch.OutOfMemoryError as error:
        raise RunError(
            "a model must fit into the memory of the graphics processor, got "
            f"{str(error).split('. ')[0]}; free some, choose another with CUDA_VISIBLE_DEVICES=1, "
            "or compute without: CUDA_VISIBLE_DEVICES="
        ) from error


def load_run(
    root: Path, only: list[str] | None = None, layers: bool = True
) -> tuple[PathWeave, Recipe]:
    """Return the model of a run with its finished paths, and the run's recipe.

    Args:
        root: Directory of the run.
        only: Load these paths and their predecessors; None loads all.
        layers: See ``load_base``.

    Raises:
        RunError: If the directory is no run, or without ``layers`` a path changes them.
        PathError: If a path is damaged, or a predecessor is missing or another.
    """
    run = RunDirectory(root)
    recipe = run.recipe()
    # All values are loaded, where the run has its own connector: none are drawn before.
    # A language model of another family may fill what its file lacks, as Gemma its scale of words.
    is_whole = recipe.base == "mini" and recipe.llm is None and run.base.exists()
    with NotFilling() if is_whole else nullcontext():
        model = new_model(recipe, layers)
        load_finished(model, run, recipe, only)
    if not layers:
        refuse_hosts(model)
    return model, recipe


def refuse_hosts(model: PathWeave) -> None:
    """Refuse paths that change the language model from within.

    Raises:
        RunError: If there are any.
    """
    if inside := [path.spec.name for path in model.paths if path.experts_in_llm()]:
        raise RunError(
            "paths must have their adapters outside the language model to be answered by another "
            f"engine, got {', '.join(inside)} with some inside; leave --engine out, or load others"
        )


def load_finished(
    model: PathWeave, run: RunDirectory, recipe: Recipe, only: list[str] | None = None
) -> list[str]:
    """Load the connector of a run and its finished paths into a new model.

    A path of the run takes the place of the one of that name that the base came with. Those that
    belong to the base's own connector are dropped where the run has another one. Where stages have
    changed the connector, all paths are read with it as the last of them left it. The model is
    frozen then, as it was when the proofs of the paths were recorded.

    Args:
        model: The model.
        run: The directory of the run.
        recipe: Its recipe.
        only: Load these paths and their predecessors; None loads all.

    Returns:
        The finished stages, in order.
    """
    finished = run.finished(recipe)
    newest = run.newest_connector(finished)
    own_connector = newest is not None or (bool(finished) and run.base.exists())
    changed: dict[str, dict[str, Tensor]] = {}
    fingerprint = ""
    if newest is not None:
        changed = load_shared(model, newest)
    elif own_connector:
        fingerprint = load_connector(model.base, run.base)
    for name in model.paths.names:
        if own_connector or name in finished:
            model.paths.drop(name)
    wanted = None if only is None else [n for n in only if n not in model.paths]
    if finished and not fingerprint:
        fingerprint = model.base.fingerprint()
    made_for = dict.fromkeys(finished, fingerprint)
    if newest is not None:
        # A stage that changed the connector says what the fingerprint was before, so the paths of
        # a run are a chain, which ends with the connector as it is now.
        for name in reversed(finished):
            made_for[name] = fingerprint
            fingerprint = describe_path(run.path(name)).get("connector_before", fingerprint)
    for name in load_order({name: run.path(name) for name in finished}, wanted):
        path = load_path(run.path(name), model.paths, made_for[name])
        if name in changed:
            rule = f"path {name!r} must fit what a later stage changed in it"
            load_exactly(path, changed[name], rule, "copy the whole run again")
    freeze(model)  # weights that want gradients are multiplied in another way, to other last bits
    return finished


def make_readers(
    recipe: Recipe | None,
    base: Base | None = None,
    run: RunDirectory | None = None,
    guard: Callable[[Decoder], Decoder] = lambda decoder: decoder,
    cache: FeatureCache | None = None,
) -> Readers:
    """Return readers of the declared modalities over a cache of features.

    Args:
        recipe: Declares the modalities; None declares none.
        base: The paths that it comes with are read as it says, where the recipe does not declare
            their modality. A vision LLM reads its own media, and its tower is the encoder ``base``.
        run: Its finished paths are read with code that is what it was when they were learnt.
        guard: Wraps each decoder.
        cache: Where features are kept; None is the shared cache.

    Raises:
        RecipeError: If an encoder is the tower of a base that has none.
    """
    native = {
        path.spec.name: Modality(
            decoder=Component.model_validate(path.decoder),
            encoder=Component.model_validate(path.encoder),
        )
        for path in (base.ready_paths if base is not None else ())
    }
    by_itself = decoders_of(() if base is None else base.native)
    declared = recipe.modalities if recipe is not None else {}
    learnt = {}
    if recipe is not None and run is not None:
        own = [name for name in run.finished(recipe) if recipe.own_parts(name)]
        learnt = {name: describe_path(run.path(name)).get("sources", {}) for name in own}
    cache = cache or FeatureCache(features_home())
    reader = None
    if base is not None and base.native:
        reader = VisionLlmReader(base.llm, base.reader, picture_kind(base.native))
    readers = Readers({**native, **declared}, cache, learnt, by_itself, reader, guard)
    for name, modality in declared.items():
        if modality.encoder is not None and modality.encoder.kind == BASE:
            readers[name]  # it is refused now, and not when its turn comes
    return readers
