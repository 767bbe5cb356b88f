"""Batches of waveforms."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Float32
from torch import Tensor

from pathweave.encoders.media import Waveform
from pathweave.errors import MediaError


def stack_waveforms(
    media: Sequence[Waveform], rate: int, batch_size: int
) -> Iterator[Float32[Tensor, "batch samples"]]:
    """Yield sounds in their order, stacked where neighbours have the same length.

    Args:
        media: Sounds.
        rate: Samples per second that every sound must have, Hz.
        batch_size: Most sounds in a batch.

    Raises:
        MediaError: If a sound has another rate.
    """
    for sound in media:
        if sound.rate != rate:
            raise MediaError(
                f"sounds must be sampled at {rate} Hz, got {sound.rate} Hz; "
                f"set the decoder's rate to {rate}"
            )
    for _, group in groupby(media, key=lambda sound: len(sound.samples)):
        yield from torch.stack([torch.tensor(sound.samples) for sound in group]).split(batch_size)
