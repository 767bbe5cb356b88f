"""The encoder of Whisper on short windows.

Robust Speech Recognition via Large-Scale Weak Supervision, arXiv 2212.04356. The layers are
those of transformers. Axes: ``batch mels frames`` of the spectrogram, then ``batch tokens width``.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from pathweave.bases.convert.whisper import TINY_EN
from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.media import Waveform
from pathweave.encoders.spectrogram import (
    power_spectrum,
    slaney_frequency,
    slaney_mel,
    triangles,
)
from pathweave.encoders.waveforms import samples_at
from pathweave.encoders.weights import REMEDY, load_weights
from pathweave.errors import FetchError, MediaError, RecipeError
from pathweave.storage.atomic import read_json


def whisper_network(
    num_mels: int, width: int, num_layers: int, num_heads: int, max_positions: int
) -> Any:  # noqa: ANN401
    """Return the encoder of transformers, with random weights.

    Args:
        num_mels: Mel bands of the spectrogram.
        width: Width of a token.
        num_layers: Number of transformer layers.
        num_heads: Attention heads per layer.
        max_positions: Longest input, in tokens.
    """
    # Importing the models of transformers takes seconds.
    from transformers import WhisperConfig
    from transformers.models.whisper import modeling_whisper

    config = WhisperConfig(
        num_mel_bins=num_mels,
        d_model=width,
        encoder_layers=num_layers,
        encoder_attention_heads=num_heads,
        encoder_ffn_dim=4 * width,
        max_source_positions=max_positions,
    )
    return modeling_whisper.WhisperEncoder(config).eval()


def log_mel(
    samples: Float32[Tensor, "batch samples"], num_mels: int = 80
) -> Float32[Tensor, "batch mels frames"]:
    """Return Whisper's log-mel spectrogram of sounds at 16 kHz; one frame per 10 ms.

    The values span at most 2 and are about [-1, 1] for loud sounds.
    """
    rate, window, hop = 16_000, 400, 160
    top = slaney_mel(torch.tensor([rate / 2]))
    corners = slaney_frequency(torch.linspace(0, top.item(), num_mels + 2))
    filters = triangles(corners, torch.linspace(0, rate / 2, window // 2 + 1))
    # Slaney's filters have equal areas, so wide ones are low.
    filters = filters * (2 / (corners[2:] - corners[:-2]))[:, None]
    # Shorter sounds cannot be mirrored at their ends.
    samples = F.pad(samples, (0, max(0, window - samples.shape[1])))
    # The last frame is centred on the end of the sound, beyond the last whole hop.
    power = power_spectrum(samples, window, hop)[..., :-1]
    log = torch.log10((filters @ power).clamp(min=1e-10))
    return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8) + 4) / 4


class WhisperEncoder(NetworkEncoder):
    """Sounds at 16 kHz to the tokens of Whisper's encoder, averaged over neighbours.

    A window is a whole sound. The last step is a layer norm, so values are of the order of 1: over
    short sounds their mean is about 0 and their deviation about 1.

    Args:
        directory: Directory with ``config.json`` and ``model.safetensors``, see
            ``pathweave.bases``.
        pool: Number of neighbouring tokens (20 ms each) that are averaged to one.
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If ``pool`` is not positive.
    """

    accepts: type = Waveform
    batch: int = 32

    def __init__(self, directory: Path, pool: int = 5, *, with_weights: bool = True) -> None:
        if pool < 1:
            raise RecipeError(f"pool must be positive, got {pool}; 5 is a good start")
        config = TINY_EN
        if with_weights:
            rule = f"{directory} must hold the weights of an encoder"
            config = read_json(directory / "config.json", rule, REMEDY, FetchError)
        self.pool = pool
        self.rate = config["rate"]
        self.width = config["width"]
        # A token stands for two frames of the spectrogram.
        self.max_seconds = config["max_positions"] * 2 * config["hop"] / self.rate
        sizes = ("num_mels", "width", "num_layers", "num_heads", "max_positions")
        self.network = whisper_network(*(config[name] for name in sizes))
        weights = load_weights(self.network, directory) if with_weights else None
        self.fingerprint = f"whisper pool={pool} weights={weights}"

    def units(self, medium: Waveform) -> list[Float32[Tensor, " samples"]]:
        """Return the samples of a sound.

        Raises:
            MediaError: If it has another rate or is longer than 30 s.
        """
        samples = samples_at(medium, self.rate)
        if len(samples) > self.max_seconds * self.rate:
            raise MediaError(
                f"sounds must be at most {self.max_seconds:.0f} s long, got "
                f"{len(samples) / self.rate:.1f} s; lower the decoder's seconds"
            )
        return [samples]

    def prepare(
        self, batch: Float32[Tensor, "batch samples"]
    ) -> Float32[Tensor, "batch mels frames"]:
        """Return the spectrograms of sounds."""
        return log_mel(batch)

    def encode(
        self, inputs: Float32[Tensor, "batch mels frames"]
    ) -> Float32[Tensor, "batch tokens width"]:
        """Return a token per ``20 ms * pool``."""
        # What the network's own ``forward`` does, which insists on windows of 30 s.
        network = self.network
        x = F.gelu(network.conv2(F.gelu(network.conv1(inputs)))).transpose(1, 2)
        x = x + network.embed_positions.weight[: x.shape[1]]
        for layer in network.layers:
            x = layer(x, None)
        tokens = network.layer_norm(x).transpose(1, 2)
        pooled = F.avg_pool1d(tokens, min(self.pool, tokens.shape[2]), ceil_mode=True)
        return pooled.transpose(1, 2)
