"""Frozen feature extractors behind one small protocol."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pathweave.bases.fetch import weights_dir
from pathweave.encoders.efficientnet import EfficientNetLite0
from pathweave.encoders.encoder import Encoder
from pathweave.encoders.precomputed import Precomputed
from pathweave.encoders.sound_effects import SoundEffectsEncoder
from pathweave.encoders.whisper import WhisperEncoder
from pathweave.errors import RecipeError

__all__ = [
    "EfficientNetLite0",
    "Encoder",
    "Precomputed",
    "SoundEffectsEncoder",
    "WhisperEncoder",
    "build_encoder",
]

_KINDS: dict[str, Callable[..., Encoder]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "whisper": WhisperEncoder,
    "sound-effects": SoundEffectsEncoder,
    "precomputed": Precomputed,
}
_WEIGHTS = {
    "efficientnet-lite0": "efficientnet-lite0",
    "whisper": "whisper-tiny-en",
    "sound-effects": "aisfx",
}


def build_encoder(kind: str, **options: object) -> Encoder:
    """Return the encoder named ``kind``; its weights are fetched when they are first needed.

    Args:
        kind: One of ``efficientnet-lite0``, ``whisper``, ``sound-effects``, ``precomputed``.
        options: Arguments of that encoder. ``directory`` replaces the fetched weights.

    Raises:
        RecipeError: If the kind or an option is unknown, missing, or has a wrong value.
        FetchError: If the weights cannot be fetched.

    Example:
        >>> build_encoder("precomputed", width=8).fingerprint
        'precomputed width=8'
    """
    if kind not in _KINDS:
        raise RecipeError(
            f"encoder must be one of {', '.join(_KINDS)}, got {kind!r}{_nearest(kind, _KINDS)}"
        )
    parameters = inspect.signature(_KINDS[kind]).parameters
    for option, value in options.items():
        if option not in parameters:
            raise RecipeError(
                f"options of encoder {kind!r} must be among {', '.join(parameters)}, "
                f"got {option!r}{_nearest(option, parameters)}"
            )
        if option != "directory" and type(value) is not int:
            raise RecipeError(
                f"option {option!r} of encoder {kind!r} must be a whole number, got {value!r}; "
                "correct it in the recipe"
            )
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in {"directory", *options}:
            raise RecipeError(
                f"encoder {kind!r} must have the option {option!r}, got none; add it to the recipe"
            )
    arguments: dict[str, Any] = dict(options)
    if "directory" in parameters:
        arguments["directory"] = Path(arguments.get("directory") or weights_dir(_WEIGHTS[kind]))
    return _KINDS[kind](**arguments)


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; did you mean {matches[0]!r}?" if matches else ""
