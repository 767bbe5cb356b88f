"""The embedding network of aiSFX, trained on libraries of sound effects.

Representation Learning for the Automatic Indexing of Sound Effects Libraries, arXiv 2208.09096.
Parameter names are those of the published weights. Axes: ``batch frames mels`` of the spectrogram,
then ``batch channels rows columns`` with time along the rows.
"""

from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.media import Waveform
from pathweave.encoders.spectrogram import (
    htk_frequency,
    htk_mel,
    power_spectrum,
    triangles,
)
from pathweave.encoders.waveforms import samples_at
from pathweave.encoders.weights import load_weights
from pathweave.errors import RecipeError

_RATE = 44_100
_WINDOW, _HOP, _MELS = 2048, 1024, 96
# The largest value in the training data.
_LARGEST = 9.457798957824707


class _ConvBlock(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(
        self, x: Float32[Tensor, "batch channels rows columns"]
    ) -> Float32[Tensor, "batch out rows columns"]:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class SoundEffectsNetwork(nn.Module):
    """Four pairs of convolutions over the spectrogram, halved three times in time and frequency.

    Example:
        >>> SoundEffectsNetwork().eval()(torch.zeros(1, 80, 96)).shape
        torch.Size([1, 512, 10, 12])
    """

    width = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv_block1 = _ConvBlock(1, 64)
        self.conv_block2 = _ConvBlock(64, 128)
        self.conv_block3 = _ConvBlock(128, 256)
        self.conv_block4 = _ConvBlock(256, self.width)

    def forward(
        self, mels: Float32[Tensor, "batch frames mels"]
    ) -> Float32[Tensor, "batch channels rows columns"]:
        """Return the last feature map; one row per 186 ms."""
        x = mels.unsqueeze(1)
        for block in (self.conv_block1, self.conv_block2, self.conv_block3):
            x = F.max_pool2d(block(x), 2)
        return self.conv_block4(x)


def log_mel(samples: Float32[Tensor, "batch samples"]) -> Float32[Tensor, "batch frames mels"]:
    """Return the log-mel spectrogram of sounds at 44.1 kHz, in about [0, 1]; a frame per 23 ms."""
    top = htk_mel(torch.tensor([_RATE / 2]))
    corners = htk_frequency(torch.linspace(0, top.item(), _MELS + 2))
    filters = triangles(corners, torch.linspace(0, _RATE / 2, _WINDOW // 2 + 1))
    # The network was trained with filters whose weights sum to 1, and on loud sounds. The lowest
    # filters may lie between two bins and be empty.
    filters = filters / filters.sum(1, keepdim=True).clamp(min=1e-12)
    loudest = samples.abs().amax(1, keepdim=True).clamp(min=1e-9)
    power = power_spectrum(samples / loudest, _WINDOW, _HOP)
    return (torch.log10(1 + 1e4 * (filters @ power)) / _LARGEST).transpose(1, 2)


class SoundEffectsEncoder(NetworkEncoder):
    """Sounds at 44.1 kHz to the network's last feature map, averaged within bands of frequency.

    Values are at least 0; over drum sounds their mean is 0.3 and their deviation 0.6.

    Args:
        directory: Directory with ``model.safetensors``, see ``pathweave.bases``.
        bands: Number of frequency bands, from low to high, each a token of its own; a divisor of
            12. The published network has one; three tell sounds apart better (docs/log.md).
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If ``bands`` is not a divisor of 12.
    """

    accepts: type = Waveform
    batch: int = 32
    rate: int = _RATE
    width: int = SoundEffectsNetwork.width

    def __init__(self, directory: Path, bands: int = 3, *, with_weights: bool = True) -> None:
        columns = _MELS // 8
        if bands < 1 or columns % bands:
            raise RecipeError(f"bands must divide {columns}, got {bands}; 3 is a good start")
        self.bands = bands
        self.network = SoundEffectsNetwork()
        weights = load_weights(self.network, directory) if with_weights else None
        self.fingerprint = f"sound-effects bands={bands} weights={weights}"

    def units(self, medium: Waveform) -> list[Float32[Tensor, " samples"]]:
        """Return the samples of a sound, followed by silence up to 8 frames: they leave a row."""
        samples = samples_at(medium, self.rate)
        return [F.pad(samples, (0, max(0, 8 * _HOP - len(samples))))]

    def prepare(
        self, batch: Float32[Tensor, "batch samples"]
    ) -> Float32[Tensor, "batch frames mels"]:
        """Return the spectrograms of sounds."""
        return log_mel(batch)

    def encode(
        self, inputs: Float32[Tensor, "batch frames mels"]
    ) -> Float32[Tensor, "batch tokens 512"]:
        """Return ``bands`` tokens per 186 ms."""
        pooled = self.network(inputs).unflatten(3, (self.bands, -1)).mean(4)
        return pooled.flatten(2).transpose(1, 2)
