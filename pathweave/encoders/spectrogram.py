"""Log-mel spectrograms in plain torch. Axes: ``batch samples``, ``bins`` of frequency, ``mels``."""

import torch
from jaxtyping import Float32
from torch import Tensor


def htk_mel(frequency: Float32[Tensor, " points"]) -> Float32[Tensor, " points"]:
    """Return frequencies in Hz on the mel scale of HTK (logarithmic throughout)."""
    return 2595 * torch.log10(1 + frequency / 700)


def htk_frequency(mel: Float32[Tensor, " points"]) -> Float32[Tensor, " points"]:
    """Return the inverse of ``htk_mel``, in Hz."""
    return 700 * (10 ** (mel / 2595) - 1)


def slaney_mel(frequency: Float32[Tensor, " points"]) -> Float32[Tensor, " points"]:
    """Return frequencies in Hz on the mel scale of Slaney (linear below 1 kHz)."""
    high = 15 + torch.log(frequency.clamp(min=1000) / 1000) * 27 / torch.log(torch.tensor(6.4))
    return torch.where(frequency < 1000, frequency * 3 / 200, high)


def slaney_frequency(mel: Float32[Tensor, " points"]) -> Float32[Tensor, " points"]:
    """Return the inverse of ``slaney_mel``, in Hz."""
    high = 1000 * torch.exp((mel - 15) * torch.log(torch.tensor(6.4)) / 27)
    return torch.where(mel < 15, mel * 200 / 3, high)


def triangles(
    corners: Float32[Tensor, " points"], bins: Float32[Tensor, " bins"]
) -> Float32[Tensor, "mels bins"]:
    """Return triangular filters of height 1; filter ``i`` rises from corner ``i`` to ``i + 1``.

    Args:
        corners: Corner frequencies, ascending, two more than there are filters, Hz.
        bins: Frequencies of the spectrum, Hz.
    """
    low, peak, high = (corners[i : len(corners) - 2 + i, None] for i in range(3))
    rise, fall = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return torch.minimum(rise, fall).clamp(min=0)


def power_spectrum(
    samples: Float32[Tensor, "batch samples"], window: int, hop: int
) -> Float32[Tensor, "batch bins frames"]:
    """Return squared magnitudes of the short-time Fourier transform with a Hann window.

    Args:
        samples: Amplitudes.
        window: Length of the window, samples.
        hop: Step from one frame to the next, samples. Frames are centred on its multiples, and the
            ends are mirrored.
    """
    spectrum = torch.stft(
        samples,
        window,
        hop,
        window=torch.hann_window(window),
        pad_mode="reflect",
        return_complex=True,
    )
    return spectrum.abs() ** 2
