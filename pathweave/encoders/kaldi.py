"""The log-mel filter bank of the speech toolkit Kaldi, in plain torch, all frames at once.

It differs from the spectrograms of other networks (``spectrogram``) in that it takes the mean off
each frame, boosts its high frequencies, and keeps whole frames only. Axes: ``batch samples`` of
the sounds, ``frames`` of 25 ms every 10 ms, ``mels`` bands.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

from pathweave.encoders.spectrogram import triangles

RATE = 16_000
WINDOW, HOP = 400, 160
_FFT = 512
_LOWEST, _HIGHEST = 20.0, RATE / 2
_PREEMPHASIS = 0.97
# Kaldi computes on 16-bit amplitudes.
_AMPLITUDE = 2.0**15


def filter_bank(
    samples: Float32[Tensor, "batch samples"], num_mels: int = 128
) -> Float32[Tensor, "batch frames mels"]:
    """Return Kaldi's log-mel energies of sounds at 16 kHz.

    The first frame starts with the sound; there are ``1 + (samples - 400) // 160`` frames. Values
    are natural logarithms between -15.9 (silence) and about 20.

    Args:
        samples: Amplitudes in [-1, 1], at least 400 of them.
        num_mels: Bands, evenly spaced on Kaldi's mel scale from 20 Hz to 8 kHz.

    Example:
        >>> filter_bank(torch.zeros(1, 16_000)).shape
        torch.Size([1, 98, 128])
    """
    frames = (samples * _AMPLITUDE).unfold(1, WINDOW, HOP)
    frames = frames - frames.mean(2, keepdim=True)
    before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
    # Povey's window: a Hann window that is a little wider.
    hann = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
    frames = (frames - _PREEMPHASIS * before) * hann.pow(0.85).float().to(samples.device)
    power = torch.fft.rfft(frames, n=_FFT).abs().square()
    # Triangles on the mel scale; the lowest may lie between two bins and be empty.
    low, high = _mel(torch.tensor([_LOWEST, _HIGHEST], dtype=torch.float64)).tolist()
    bins = _mel(torch.linspace(0, RATE / 2, _FFT // 2 + 1, dtype=torch.float64)).float()
    filters = triangles(torch.linspace(low, high, num_mels + 2), bins)
    energies = power @ filters.T.to(samples.device)
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


def _mel(frequency: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(frequency / 700.0)
