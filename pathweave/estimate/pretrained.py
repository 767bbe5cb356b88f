"""Any encoder of transformers as shapes: from the small files of its directory, without weights."""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoModel

from pathweave.encoders.inner_encoder import (
    PICTURES,
    InnerEncoder,
    as_tokens,
    find_encoder,
    load_processor,
    processed_pictures,
    read_part,
)
from pathweave.errors import RecipeError
from pathweave.estimate.measure import Shapes
from pathweave.estimate.network import Network, weight_size

SIDE = 64  # pixels of a picture before the model's processor resizes it


def pretrained_network(options: dict[str, Any], decoder: Any, pictures: int) -> Network:  # noqa: ANN401
    """Return an encoder of the kind ``transformers`` as a network of shapes.

    Args:
        options: Options of the encoder; ``model`` must be a directory.
        decoder: Decoder of the media.
        pictures: Pictures that the decoder makes of a medium.

    Raises:
        RecipeError: If ``model`` is no directory, or has no encoder of media.
        FetchError: If the directory lacks its small files.
    """
    directory = Path(options["model"])
    if not directory.is_dir():
        raise RecipeError(
            "estimate must find config.json and preprocessor_config.json of an encoder of kind "
            f"'transformers' in a directory, got model {options['model']!r}; download these "
            "two files into one and name it as model"
        )
    config = read_part("AutoConfig", directory)
    place, input_name = find_encoder(config, str(directory))
    processor = load_processor(directory, input_name)
    with Shapes():
        module = AutoModel.from_config(config).get_submodule(place)
    if input_name in PICTURES:
        inputs, units = _pictures(processor, pictures)
    else:
        window = InnerEncoder(module, processor, frozenset()).window
        inputs, units = _windows(processor, decoder, options.get("seconds"), window)
    known = inspect.signature(module.forward).parameters
    unit = {name: value[:1].to("meta") for name, value in inputs.items() if name in known}
    pool = options.get("pool")

    def encode() -> Tensor:
        return as_tokens(module(**unit).last_hidden_state, pool)

    return Network(module, encode, units, weight_size(options))


def _pictures(processor: Any, count: int) -> tuple[Mapping[str, Tensor], int]:  # noqa: ANN401
    inputs = processed_pictures(processor, np.zeros((count, SIDE, SIDE, 3), np.uint8))
    # Some processors stack the pictures of a clip into one unit.
    return inputs, len(next(iter(inputs.values())))


def _windows(
    processor: Any,  # noqa: ANN401
    decoder: Any,  # noqa: ANN401
    seconds: float | None,
    window: int | None,
) -> tuple[Mapping[str, Tensor], int]:
    rate = processor.sampling_rate
    whole = round(decoder.rate * decoder.seconds) * decoder.windows
    length = window if seconds is None else round(seconds * rate)
    length = length or whole
    silence = np.zeros(min(length, whole), np.float32)
    inputs = processor(silence, sampling_rate=rate, return_tensors="pt")
    return inputs, math.ceil(whole / length)
