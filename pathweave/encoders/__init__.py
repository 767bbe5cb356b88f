"""Frozen feature extractors behind one small protocol."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pathweave.bases.fetch import fetched_dir, weights_dir
from pathweave.bases.hub import is_remote, local_directory
from pathweave.bases.shards import Shards
from pathweave.bases.weights_manifest import find_weights
from pathweave.encoders.base_tower import BaseTower
from pathweave.encoders.beats import PUBLISHED as BEATS
from pathweave.encoders.beats import Beats
from pathweave.encoders.efficientnet import EfficientNetLite0
from pathweave.encoders.encoder import Encoder, OwnEncoder
from pathweave.encoders.eva_clip import EvaClip
from pathweave.encoders.eva_weights import LAVIS
from pathweave.encoders.inner_encoder import CONFIG, check_model
from pathweave.encoders.point_bert import PUBLISHED as ULIP2
from pathweave.encoders.point_bert import PointBert
from pathweave.encoders.precomputed import Precomputed
from pathweave.encoders.pretrained import Pretrained
from pathweave.encoders.published import Published
from pathweave.encoders.series import SeriesEncoder
from pathweave.encoders.sound_effects import SoundEffectsEncoder
from pathweave.encoders.whisper import WhisperEncoder
from pathweave.errors import RecipeError
from pathweave.parts import Parts, is_own
from pathweave.validation import explain

__all__ = [
    "BASE",
    "KINDS",
    "SERIES",
    "BaseTower",
    "Beats",
    "EfficientNetLite0",
    "Encoder",
    "EvaClip",
    "PointBert",
    "Precomputed",
    "Pretrained",
    "SeriesEncoder",
    "SoundEffectsEncoder",
    "WhisperEncoder",
    "build_encoder",
    "check_encoder",
    "check_files",
    "hub_id",
    "licence_of",
    "weights_of",
]

SERIES = "series"
BASE = "base"
_OURS: dict[str, Callable[..., Encoder]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "whisper": WhisperEncoder,
    "sound-effects": SoundEffectsEncoder,
    "eva-clip-g": EvaClip,
    "beats": Beats,
    "ulip2": PointBert,
    "transformers": Pretrained,
    "precomputed": Precomputed,
    SERIES: SeriesEncoder,
    BASE: BaseTower,
}
KINDS: Parts[Callable[..., Encoder]] = Parts(
    "encoder",
    _OURS,
    "a class with accepts and __call__ (pathweave.encoders.Encoder)",
    lambda part: inspect.isclass(part) and {"accepts", "__call__"} <= {*dir(part)},
)
_WEIGHTS: dict[str, str | Published] = {
    "efficientnet-lite0": "efficientnet-lite0",
    "whisper": "whisper-tiny-en",
    "sound-effects": "aisfx",
    "eva-clip-g": LAVIS,
    "beats": BEATS,
    "ulip2": ULIP2,
}


def build_encoder(kind: str, **options: object) -> Encoder:
    """Return the encoder named ``kind``; its weights are fetched when they are first needed.

    Args:
        kind: One of ``efficientnet-lite0``, ``whisper``, ``sound-effects``, ``eva-clip-g``,
            ``beats``, ``ulip2``, ``transformers``, ``precomputed``, ``series``, or one of your own
            as ``package.module:Class``. The tower of a base (``base``) needs that: ``BaseTower``.
        options: Arguments of that encoder. ``directory`` replaces the fetched weights; the three
            of the paper need it.

    Raises:
        RecipeError: If the kind or an option is unknown, missing, or has a wrong value.
        FetchError: If the weights cannot be fetched, or are damaged or of another model.

    Example:
        >>> build_encoder("precomputed", width=8).fingerprint
        'precomputed width=8'
    """
    check_encoder(kind, options)
    arguments: dict[str, Any] = dict(options)
    if isinstance(name := weights_of(kind), str) and "directory" not in options:
        arguments["directory"] = weights_dir(name)
    elif "directory" in options:
        arguments["directory"] = Path(str(options["directory"]))
    encoder = KINDS[kind](**arguments)
    return OwnEncoder(kind, encoder) if is_own(kind) else encoder


def check_encoder(kind: str, options: Mapping[str, object]) -> None:
    """Check the kind of an encoder and its options by themselves; nothing is read.

    Raises:
        RecipeError: If the kind or an option is unknown, missing, or has a wrong value.
    """
    schema, weights = _schema(kind), weights_of(kind)
    given = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
    try:
        schema.model_validate(given)
    except ValidationError as error:
        reason = explain(error, schema)
        raise RecipeError(f"encoder {kind!r}: {reason}; correct it in the recipe") from error
    if isinstance(weights, Published) and "directory" not in options:
        raise RecipeError(
            f"encoder {kind!r} must have the option 'directory', got none; {weights.remedy}"
        )


@cache
def _schema(kind: str) -> type[BaseModel]:
    """Return what the options of an encoder must be: what its class is made with."""
    fields: dict[str, Any] = {}
    for name, each in inspect.signature(KINDS[kind], eval_str=True).parameters.items():
        if each.kind is not each.KEYWORD_ONLY:
            is_needed = each.default is each.empty and name != "directory"
            # Paths come from YAML and JSON as text.
            kept = str if each.annotation is Path else each.annotation
            fields[name] = Any if kept is each.empty else kept, ... if is_needed else None
    strict = ConfigDict(extra="forbid", strict=True)
    return create_model("Options", __config__=strict, **fields)


def check_files(kind: str, options: Mapping[str, object]) -> None:
    """Check an encoder and its options, and that what it reads is on this machine.

    Nothing is loaded or fetched.

    Raises:
        RecipeError: If the kind or an option is unknown, missing, or has a wrong value.
        FetchError: If weights or settings are missing.
    """
    check_encoder(kind, options)
    weights = weights_of(kind)
    if is_own(kind):
        return  # what its options name is known to itself alone
    if "model" in options:
        check_model(local_directory(str(options["model"])))
    elif "directory" in options:
        place = str(options["directory"])
        is_model = weights is LAVIS and (is_remote(place) or (Path(place) / CONFIG).is_file())
        if isinstance(weights, Published) and not is_model:
            weights.find(Path(place))
        else:
            Shards(local_directory(place))
    elif isinstance(weights, str):
        fetched_dir(weights)


def hub_id(kind: str, options: Mapping[str, object]) -> str | None:
    """Return the id of the model of the hub that an encoder is read from, if it is one."""
    # Of the published encoders this one alone is also read from a whole model.
    is_read = "model" in options or weights_of(kind) is LAVIS
    name = str(options.get("model") or options.get("directory") or "")
    return name if is_read and is_remote(name) else None


def weights_of(kind: str) -> str | Published | None:
    """Return where the weights of an encoder come from.

    Returns:
        The name of weights that are fetched if no ``directory`` is given; a checkpoint that the
        user has to get; or None for an encoder without weights, or whose ``model`` names them.
    """
    return _WEIGHTS.get(kind)


def licence_of(kind: str) -> str:
    """Return the licence of an encoder's published weights, or that none is known.

    Example:
        >>> licence_of("beats"), licence_of("precomputed")
        ('MIT', 'not stated')
    """
    weights = weights_of(kind)
    if weights is None:
        return "not stated"
    return weights.licence if isinstance(weights, Published) else find_weights(weights).licence
