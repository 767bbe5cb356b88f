"""Samples of sounds."""

import torch
from jaxtyping import Float32
from torch import Tensor

from pathweave.encoders.media import Waveform
from pathweave.errors import MediaError


def samples_at(sound: Waveform, rate: int) -> Float32[Tensor, " samples"]:
    """Return the amplitudes of a sound that has ``rate`` samples per second.

    Raises:
        MediaError: If it has another rate.
    """
    if sound.rate != rate:
        raise MediaError(
            f"sounds must be sampled at {rate} Hz, got {sound.rate} Hz; "
            f"set the decoder's rate to {rate}"
        )
    return torch.tensor(sound.samples)
