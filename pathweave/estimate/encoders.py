"""Features that the encoder of a modality makes of one medium, and their cost.

The encoder itself is run, on the meta device. Matrix products and convolutions of its network are
counted; choosing points and computing spectra are not.
"""

import contextlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from pathweave.bases.hub import local_directory
from pathweave.bases.vision_llm import (
    load_processor,
    native_media,
    picture_kind,
    vision_llm_of,
)
from pathweave.data.readers import common_width
from pathweave.decoders import build_decoder
from pathweave.decoders.recording import Recording
from pathweave.encoders import BASE, KINDS, SERIES, SeriesEncoder, check_encoder, hub_id
from pathweave.encoders.base_tower import BaseTower, VisionLlmReader
from pathweave.encoders.encoder import NetworkEncoder, moved
from pathweave.encoders.media import Array, Frames, Media, Waveform
from pathweave.errors import PathWeaveError, RecipeError
from pathweave.estimate.costs import Features
from pathweave.estimate.measure import Meter, MixedMeter, shapes, size
from pathweave.estimate.shapes import hub_config, known_sizes, vision_config
from pathweave.recipe.schema import Modality, Recipe

UNKNOWN_TOKENS = 32
"""Tokens taken for features that another program computes: no shape tells their number."""

UNKNOWN_SAMPLES = 1000
"""Samples taken for a recording that is not cut into windows."""

POINTS = 8192
SIDE = 64  # pixels of a picture before it is resized for the network
HALF, FULL = 2, 4  # bytes of a weight


def features_of(modality: Modality, base: str = "mini") -> Features:
    """Return what the encoder of a modality makes of one of its media.

    Args:
        modality: The modality.
        base: The base of the recipe, whose tower may be the encoder.

    Raises:
        RecipeError: If the decoder or the encoder is unknown, or its shapes are not known.
        FetchError: If a directory lacks the configuration of its encoder.
        MediaError: If the decoder's media are not what the encoder reads.
    """
    opened, encoder = modality.parts
    decoder = build_decoder(opened.kind, **opened.options)
    check_encoder(encoder.kind, encoder.options)
    if encoder.kind == "precomputed":
        return Features(units=1, tokens=UNKNOWN_TOKENS, width=encoder.options["width"])
    if isinstance(decoder, Recording) and encoder.kind == SERIES:
        samples = round(decoder.rate * decoder.seconds) if decoder.seconds else UNKNOWN_SAMPLES
        width = SeriesEncoder(**encoder.options).width
        return Features(units=decoder.windows, tokens=samples, width=width)
    try:
        if encoder.kind == BASE:
            return _measured(tower_of(base, encoder.options), decoder, is_half=True)
        network = _of_shapes(encoder.kind, encoder.options)
        is_half = hasattr(network, "dtype") and encoder.options.get("precision") != "full"
        return _measured(network, decoder, is_half)
    # Networks refuse sizes that do not fit with errors of their own.
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, PathWeaveError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"encoder {encoder.kind!r} and decoder {opened.kind!r} must fit each other and their "
            f"options the network, got {encoder.options} ({reason}); correct them"
        ) from error


def features_read(recipe: Recipe, name: str) -> Features:
    """Return what the path of a stage reads of one medium: of several modalities, the largest.

    Raises:
        RecipeError: If a decoder or an encoder is unknown, its shapes are not known, or modalities
            that one path reads differ in width.
        FetchError: If a directory lacks the configuration of its encoder.
    """
    read = {other: recipe.modalities[other] for other in recipe.read_by(name)}
    found = {other: features_of(modality, recipe.base) for other, modality in read.items()}
    common_width(name, {other: features.width for other, features in found.items()})
    return max(found.values(), key=lambda features: features.units * features.tokens)


def _measured(encoder: NetworkEncoder, decoder: Any, is_half: bool) -> Features:  # noqa: ANN401
    encoder.network.eval()
    units = encoder.units(_example(encoder, decoder))
    inputs = encoder.prepare(default_collate([units[0]]))
    # A vision LLM tells its tower what it finds in the values of a picture.
    is_base = isinstance(encoder, BaseTower)
    with torch.no_grad(), MixedMeter() if is_base else Meter() as meter:
        tokens = encoder.encode(inputs if is_base else moved(inputs, "meta"))
    parameters = size(encoder.network)
    return Features(
        units=len(units) * tokens.shape[:-2].numel(),
        tokens=tokens.shape[-2],
        width=tokens.shape[-1],
        parameters=parameters,
        # The base is held anyway.
        weight_bytes=0 if is_base else parameters * (HALF if is_half else FULL),
        flops=len(units) * meter.flops,
    )


def tower_of(base: str, options: dict[str, Any]) -> BaseTower:
    """Return the tower of a base as an encoder without weights; of files, small ones are read.

    Raises:
        RecipeError: If the base is no vision LLM, or has no tower that can be read.
        FetchError: If files are missing.
    """
    reader, config = None, vision_config(base)
    if config is not None:
        processor = load_processor(local_directory(base))
        with shapes():
            model = vision_llm_of(config, base, torch.bfloat16)
        reader = VisionLlmReader(model, processor, picture_kind(native_media(model)))
    return BaseTower(**options, reader=reader)


def _of_shapes(kind: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return an encoder without weights; of files, only configurations are read."""
    model, place = options.get("model"), options.get("directory", "")
    if model is not None and not Path(model).is_dir():
        raise RecipeError(
            "estimate must find config.json and preprocessor_config.json of an encoder of kind "
            f"{kind!r} in a directory, got model {model!r}; download these two files into one and "
            "name it as model"
        )
    arguments = options if model else options | {"directory": Path(place)}
    if "with_weights" not in inspect.signature(KINDS[kind]).parameters:
        raise RecipeError(
            f"estimate must have an encoder that is made without weights, got {kind!r} without the "
            "argument with_weights; add it (pathweave.encoders.encoder.NetworkEncoder)"
        )
    with contextlib.ExitStack() as stack:
        if hub_id(kind, options) not in (None, *known_sizes()["bases"]):
            arguments["directory"] = stack.enter_context(hub_config(place))
        stack.enter_context(shapes())
        return KINDS[kind](**arguments, with_weights=False)


def _example(encoder: NetworkEncoder, decoder: Any) -> Media:  # noqa: ANN401
    """Return a medium of the size that a decoder makes of a large one, empty."""
    if encoder.accepts is Waveform:
        samples = round(decoder.rate * decoder.seconds) * decoder.windows
        return Waveform(np.zeros(samples, np.float32), encoder.rate)
    if encoder.accepts is Array:
        return Array(np.zeros((getattr(decoder, "count", None) or POINTS, 3), np.float32))
    pictures = getattr(decoder, "frames", None) or getattr(decoder, "views", None) or 1
    if getattr(decoder, "pair", False):
        pictures = 2
    return Frames(np.zeros((pictures, SIDE, SIDE, 3), np.uint8))
