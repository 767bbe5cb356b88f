"""Recordings as they are, for a path that has a patch encoder of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from pathweave.encoders.media import Series
from pathweave.errors import MediaError, RecipeError
from pathweave.nn.positions import PositionKind


class SeriesEncoder:
    """Hands recordings on: of each channel the values, 0 where none is there, and where they are.

    Levels and scales are the recording's own; the patch encoder of the path normalises them.

    Args:
        channels: Channels that every recording must have.

    Raises:
        RecipeError: If ``channels`` is not positive.

    Example:
        >>> import numpy as np
        >>> encode = SeriesEncoder(channels=2)
        >>> values = np.array([[[1.5, 7.0], [2.5, np.nan]]], dtype=np.float32)
        >>> encode([Series(values, rate=50.0)])[0].tolist()
        [[[1.5, 7.0, 1.0, 1.0], [2.5, 0.0, 1.0, 0.0]]]
    """

    accepts: type = Series
    positions: PositionKind = "sinusoidal"
    is_exact = True  # half precision would lose small changes of a large level

    def __init__(self, channels: int) -> None:
        if channels < 1:
            raise RecipeError(
                f"channels must be positive, got {channels}; give the number of channels"
            )
        self.channels = channels
        self.width = 2 * channels
        self.fingerprint = f"series-1 channels={channels}"

    def __call__(self, media: Sequence[Series]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return ``[windows, time, 2 * channels]`` for each recording.

        Raises:
            MediaError: If a recording has another number of channels.
        """
        for series in media:
            if series.values.shape[2] != self.channels:
                raise MediaError(
                    f"a recording must have {self.channels} channels, got "
                    f"{series.values.shape[2]}; name them in the decoder's `channels`, or set the "
                    "encoder's"
                )
        values = [torch.tensor(series.values) for series in media]
        return [torch.cat([x.nan_to_num(), (~x.isnan()).float()], dim=2) for x in values]
