"""Turns the bytes of a medium into what an encoder accepts."""

from pydantic import ValidationError

from pathweave.decoders.array import Values
from pathweave.decoders.clip import Clip
from pathweave.decoders.decoder import Decoder
from pathweave.decoders.picture import Picture
from pathweave.decoders.points import Points
from pathweave.decoders.range_map import RangeMap
from pathweave.decoders.recording import Recording
from pathweave.decoders.sound import Sound
from pathweave.errors import RecipeError
from pathweave.parts import Parts
from pathweave.validation import explain

_OURS: dict[str, type[Decoder]] = {
    "picture": Picture,
    "clip": Clip,
    "sound": Sound,
    "range_map": RangeMap,
    "points": Points,
    "array": Values,
    "series": Recording,
}
DECODERS = Parts(
    "decoder",
    _OURS,
    "a subclass of pathweave.decoders.Decoder",
    lambda part: isinstance(part, type) and issubclass(part, Decoder),
)


def build_decoder(kind: str, **options: object) -> Decoder:
    """Return the decoder named ``kind``.

    Args:
        kind: One of ``picture``, ``clip``, ``sound``, ``range_map``, ``points``, ``array``,
            ``series``, or one of your own as ``package.module:Class``.
        options: Arguments of that decoder.

    Raises:
        RecipeError: If the kind or an option is unknown, or an option has a wrong value.

    Example:
        >>> build_decoder("sound", seconds=1.5)
        Sound(rate=16000, seconds=1.5, windows=1, pad=True)
    """
    decoder = DECODERS[kind]
    try:
        return decoder.model_validate(options)
    except ValidationError as error:
        reason = explain(error, decoder)
        raise RecipeError(f"decoder {kind!r}: {reason}; correct it in the recipe") from error
