"""Features that the encoder of a modality makes of one medium, and their cost."""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from pathweave.bases.hub import is_remote
from pathweave.bases.llm import CONFIG
from pathweave.data.decode import build_decoder
from pathweave.data.examples import common_width
from pathweave.encoders import check_encoder
from pathweave.encoders.beats import Beats, BeatsNetwork, BeatsShape
from pathweave.encoders.efficientnet import EfficientNet, EfficientNetLite0
from pathweave.encoders.eva_weights import VIT_G, empty_vision_model
from pathweave.encoders.point_bert import PointBertNetwork, PointBertShape
from pathweave.encoders.sound_effects import SoundEffectsEncoder, SoundEffectsNetwork
from pathweave.encoders.whisper import WhisperEncoder, WhisperNetwork
from pathweave.errors import PathWeaveError, RecipeError
from pathweave.estimate.costs import Features
from pathweave.estimate.measure import Shapes
from pathweave.estimate.network import Network, empty, weight_size
from pathweave.estimate.pretrained import pretrained_network
from pathweave.estimate.shapes import known_sizes, published_config
from pathweave.recipe.schema import Modality, Recipe

UNKNOWN_TOKENS = 32
"""Tokens taken for features that another program computes: no shape tells their number."""

POINTS = 8192


def features_of(modality: Modality) -> Features:
    """Return what the encoder of a modality makes of one of its media.

    Raises:
        RecipeError: If the decoder or the encoder is unknown, or its shapes are not known.
        FetchError: If a directory lacks the configuration of its encoder.
    """
    opened, encoder = modality.parts
    kind, options = encoder.kind, encoder.options
    decoder = build_decoder(opened.kind, **opened.options)
    check_encoder(kind, options)
    if kind == "precomputed":
        return Features(units=1, tokens=UNKNOWN_TOKENS, width=options["width"])
    try:
        with Shapes():
            network = _NETWORKS[kind](options, decoder)
        return network.features()
    # Networks refuse sizes that do not fit with errors of their own.
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, PathWeaveError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"encoder {kind!r} and decoder {opened.kind!r} must fit each other and their options "
            f"the network, got {options} ({reason}); correct them"
        ) from error


def features_read(recipe: Recipe, name: str) -> Features:
    """Return what the path of a stage reads of one medium: of several modalities, the largest.

    Raises:
        RecipeError: If a decoder or an encoder is unknown, its shapes are not known, or modalities
            that one path reads differ in width.
        FetchError: If a directory lacks the configuration of its encoder.
    """
    found = {other: features_of(recipe.modalities[other]) for other in recipe.read_by(name)}
    common_width(name, {other: features.width for other, features in found.items()})
    return max(found.values(), key=lambda features: features.units * features.tokens)


def _default(encoder: type, options: dict[str, Any], name: str) -> Any:  # noqa: ANN401
    """Return an option of an encoder, or the encoder's own default."""
    return options.get(name, inspect.signature(encoder).parameters[name].default)


def _pictures(decoder: Any) -> int:  # noqa: ANN401
    """Return how many pictures a decoder makes of a medium."""
    if getattr(decoder, "pair", False):
        return 2
    return getattr(decoder, "frames", None) or getattr(decoder, "views", None) or 1


def _samples(decoder: Any) -> int:  # noqa: ANN401
    """Return how many samples a decoder makes of a long sound."""
    return round(decoder.rate * decoder.seconds) * decoder.windows


def _efficientnet(options: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    size = _default(EfficientNetLite0, options, "size")
    module = EfficientNet()
    return Network(
        module,
        lambda: module(empty(1, 3, size, size)).flatten(2).transpose(1, 2),
        _pictures(decoder),
    )


def _whisper(options: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    pool = _default(WhisperEncoder, options, "pool")
    module = WhisperNetwork(**known_sizes()["encoders"]["whisper"])
    spectrum = (1, module.conv1.in_channels, _samples(decoder) // 160)

    def encode() -> Tensor:
        tokens = module(empty(*spectrum)).transpose(1, 2)
        return F.avg_pool1d(tokens, min(pool, tokens.shape[2]), ceil_mode=True).transpose(1, 2)

    return Network(module, encode)


def _sound_effects(options: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    bands = _default(SoundEffectsEncoder, options, "bands")
    module = SoundEffectsNetwork()
    spectrum = (1, 1 + max(_samples(decoder) // 1024, 8), 96)

    def encode() -> Tensor:
        maps = module(empty(*spectrum)).unflatten(3, (bands, -1)).mean(4)
        return maps.flatten(2).transpose(1, 2)

    return Network(module, encode)


def _eva_clip(options: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    from transformers import InstructBlipVisionConfig

    place, settings = str(options.get("directory", "")), dict[str, Any](VIT_G)
    config: Any = InstructBlipVisionConfig(**settings)
    is_unknown_id = is_remote(place) and place not in known_sizes()["bases"]
    if (Path(place) / CONFIG).is_file() or is_unknown_id:
        config = published_config(place).vision_config
    config.image_size = options.get("size") or config.image_size
    network = _vision_network(config.to_json_string(), weight_size(options))
    return replace(network, units=_pictures(decoder))


@cache
def _vision_network(settings: str, size: int) -> Network:
    from transformers import InstructBlipVisionConfig

    config: Any = InstructBlipVisionConfig(**json.loads(settings))
    module = empty_vision_model(config)
    pixels = (1, 3, config.image_size, config.image_size)
    return Network(module, lambda: module(empty(*pixels)).last_hidden_state, 1, size)


def _beats(options: dict[str, Any], _: object) -> Network:
    module = BeatsNetwork(BeatsShape(**known_sizes()["encoders"]["beats"]))
    windows = _default(Beats, options, "windows")
    return Network(module, lambda: module(empty(1, 512, 128)), windows)


def _ulip2(_: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    module = PointBertNetwork(PointBertShape())
    points = getattr(decoder, "count", None) or POINTS
    return Network(module, lambda: module(empty(1, points, 3))[:, None])


def _transformers(options: dict[str, Any], decoder: Any) -> Network:  # noqa: ANN401
    return pretrained_network(options, decoder, _pictures(decoder))


_NETWORKS: dict[str, Callable[[dict[str, Any], Any], Network]] = {
    "efficientnet-lite0": _efficientnet,
    "whisper": _whisper,
    "sound-effects": _sound_effects,
    "eva-clip-g": _eva_clip,
    "beats": _beats,
    "ulip2": _ulip2,
    "transformers": _transformers,
}
