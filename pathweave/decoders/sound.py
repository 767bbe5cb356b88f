"""Sounds: any rate and number of channels become one channel of a fixed rate and length."""

import io
import math
from typing import Any

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from pathweave.decoders.decoder import Decoder, as_array
from pathweave.decoders.pieces import pieces
from pathweave.decoders.whole import check_length
from pathweave.encoders.media import Waveform
from pathweave.errors import MediaError
from pathweave.extras import import_extra

# Read past the end that is kept, so that the resampling filter does not see an edge there.
_MARGIN_SECONDS = 0.05

_BLOCK = 1 << 20
_UNKNOWN_FRAMES = 1 << 62


class Sound(Decoder):
    """Decodes the beginning of a sound to one channel: whole windows of ``rate * seconds`` samples.

    Channels are averaged; a shorter sound is followed by silence, a longer one is cut. A sound
    whose peak is above 1 (possible in files of floats) is scaled down to a peak of 1. Encoders with
    windows of their own cut the result again.

    Args:
        rate: Samples per second of the result, in Hz.
        seconds: Length of a window.
        windows: Most windows to return. A sound that fills fewer gives only those, at least one; a
            rest of less than 50 ms gets none.
        pad: Whether a sound is followed by silence to the end of its last window. If not, it keeps
            its own length, for encoders that fill up what they read in their own way.

    Example:
        >>> import io, soundfile
        >>> stream = io.BytesIO()
        >>> soundfile.write(stream, np.zeros((441, 2)), 44100, format="WAV")
        >>> len(Sound(rate=16000, seconds=2.0)(stream.getvalue(), "silence.wav").samples)
        32000
    """

    noun = "sound (WAV, FLAC, Ogg, MP3, AIFF)"
    rate: int = Field(default=16_000, ge=1)
    seconds: float = Field(default=2.0, gt=0, le=86_400)
    windows: int = Field(default=1, ge=1)
    pad: bool = True

    @property
    def fingerprint(self) -> str:
        """Return the kind and every setting that changes the output."""
        windows = f" windows={self.windows}" if self.windows > 1 else ""
        pad = "" if self.pad else " unpadded"
        return f"sound-2 rate={self.rate} seconds={self.seconds}{windows}{pad}"

    def decode(self, data: bytes) -> Waveform:
        """Decode ``data``.

        Raises:
            MediaError: If they hold no sample or a NaN.
            PathWeaveError: If soundfile or soxr is not installed.
        """
        check_length(data)
        mono, rate = _read(data, self.seconds * self.windows + _MARGIN_SECONDS)
        if not np.isfinite(mono).all():
            raise MediaError("must hold finite amplitudes, got NaN or infinity; export it again")
        mono /= max(1.0, float(np.abs(mono).max()))
        seconds = min(len(mono) / rate, self.seconds * self.windows)
        if self.pad:
            filled = math.ceil((len(mono) / rate - _MARGIN_SECONDS) / self.seconds)
            seconds = self.seconds * min(max(1, filled), self.windows)
        # Silence is added before resampling, so that a single sample is not resampled to none.
        missing = math.ceil((seconds + _MARGIN_SECONDS) * rate) - len(mono)
        mono = np.pad(mono, (0, max(0, missing)))
        if rate != self.rate:
            mono = import_extra("soxr", "sound").resample(mono, rate, self.rate)
        length = max(1, round(self.rate * seconds))
        mono = np.clip(mono[:length], -1.0, 1.0)
        return Waveform(np.pad(mono, (0, length - len(mono))), self.rate)

    def _packed(self, value: Any, rate: int | float | None) -> bytes:  # noqa: ANN401
        array = as_array(value)
        if rate is None or rate < 1 or array.ndim not in (1, 2) or array.dtype.kind != "f":
            raise MediaError(
                "must be amplitudes in [-1, 1], [samples] or [samples, channels], with their rate "
                f"in Hz, got {list(array.shape)} of {array.dtype} at {rate}; give both"
            )
        stream = io.BytesIO()
        soundfile: Any = import_extra("soundfile", "sound")
        soundfile.write(stream, array, round(rate), format="WAV", subtype="FLOAT")
        return stream.getvalue()


def _read(data: bytes, seconds: float) -> tuple[Float32[np.ndarray, " samples"], int]:
    """Return the mean of the channels up to a time, and the rate of the first joined sound."""
    soundfile: Any = import_extra("soundfile", "sound")
    rate, parts = 0, []
    for piece in pieces(data):
        with soundfile.SoundFile(piece) as file:
            mono = _read_piece(file, math.ceil(seconds * file.samplerate))
            seconds -= len(mono) / file.samplerate
            rate = rate or file.samplerate
            if file.samplerate != rate:
                mono = import_extra("soxr", "sound").resample(mono, file.samplerate, rate)
        parts.append(mono)
        if seconds <= 0:
            break
    mono = np.concatenate(parts)
    if len(mono) == 0:
        raise MediaError("must hold at least one sample, got none; record or export it again")
    return mono, rate


def _read_piece(file: Any, most: int) -> Float32[np.ndarray, " samples"]:  # noqa: ANN401
    wanted, parts, count = min(file.frames, most), [], 0
    # In blocks, as FLAC that was written to a pipe does not know how long it is, and without the
    # search for the next place after each, which fails at the end of it.
    if file.frames >= _UNKNOWN_FRAMES:
        file.seekable = lambda: False
    while count < wanted:
        block = file.read(min(wanted - count, _BLOCK), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        parts.append(block.mean(axis=1, dtype=np.float32))
        count += len(block)
    if count < wanted and file.frames < _UNKNOWN_FRAMES and file.format != "MP3":
        raise ValueError(f"{count:,} samples of {wanted:,}")
    if file.format == "FLAC" and wanted < file.frames < _UNKNOWN_FRAMES:
        # Fails where the end is missing.
        file.seek(file.frames - 1)
        file.read(1)
    return np.concatenate([*parts, np.empty(0, np.float32)])
