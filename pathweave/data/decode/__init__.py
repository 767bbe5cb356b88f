"""Turns the bytes of a medium into what an encoder accepts."""

from pydantic import ValidationError

from pathweave.data.decode.array import Values
from pathweave.data.decode.clip import Clip
from pathweave.data.decode.decoder import Decoder
from pathweave.data.decode.picture import Picture
from pathweave.data.decode.points import Points
from pathweave.data.decode.range_map import RangeMap
from pathweave.data.decode.recording import Recording
from pathweave.data.decode.sound import Sound
from pathweave.errors import RecipeError
from pathweave.validation import explain, unknown

_KINDS: dict[str, type[Decoder]] = {
    "picture": Picture,
    "clip": Clip,
    "sound": Sound,
    "range_map": RangeMap,
    "points": Points,
    "array": Values,
    "series": Recording,
}


def build_decoder(kind: str, **options: object) -> Decoder:
    """Return the decoder named ``kind``.

    Args:
        kind: One of ``picture``, ``clip``, ``sound``, ``range_map``, ``points``, ``array``,
            ``series``.
        options: Arguments of that decoder.

    Raises:
        RecipeError: If the kind or an option is unknown, or an option has a wrong value.

    Example:
        >>> build_decoder("sound", seconds=1.5)
        Sound(rate=16000, seconds=1.5, windows=1, pad=True)
    """
    if kind not in _KINDS:
        raise RecipeError(unknown("decoder", kind, _KINDS))
    decoder = _KINDS[kind]
    try:
        return decoder.model_validate(options)
    except ValidationError as error:
        reason = explain(error, decoder)
        raise RecipeError(f"decoder {kind!r}: {reason}; correct it in the recipe") from error
