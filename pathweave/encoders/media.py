"""Media: what decoders return and encoders accept.

Axes: ``frames`` pictures in order of time or of viewpoint, ``height`` and ``width`` in pixels,
``samples`` of a waveform, ``tokens`` of precomputed features, ``windows`` of a recording and
``time`` in samples.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True, eq=False)
class Frames:
    """One or more RGB pictures of the same size.

    Args:
        pixels: Red, green and blue in [0, 255]. A single picture is one frame.

    Example:
        >>> Frames(np.zeros((1, 4, 6, 3), dtype=np.uint8)).pixels.shape
        (1, 4, 6, 3)
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, eq=False)
class Waveform:
    """A sound with one channel.

    Args:
        samples: Amplitudes in [-1, 1].
        rate: Samples per second, in Hz.

    Example:
        >>> sound = Waveform(np.zeros(8000, dtype=np.float32), rate=16000)
        >>> len(sound.samples) / sound.rate
        0.5
    """

    samples: Float32[np.ndarray, " samples"]
    rate: int


@dataclass(frozen=True, eq=False)
class Array:
    """Numbers that another program has computed, one row per token.

    Args:
        values: Finite numbers of any range.

    Example:
        >>> Array(np.ones((3, 8), dtype=np.float32)).values.shape
        (3, 8)
    """

    values: Float32[np.ndarray, "tokens width"]


@dataclass(frozen=True, eq=False)
class Series:
    """Windows of a recording of one or more channels.

    Args:
        values: Numbers of any unit and range; NaN where none was recorded.
        rate: Samples per second, in Hz.

    Example:
        >>> Series(np.zeros((1, 100, 6), dtype=np.float32), rate=50.0).values.shape
        (1, 100, 6)
    """

    values: Float32[np.ndarray, "windows time channels"]
    rate: float


Media = Frames | Waveform | Array | Series
