"""The encoder of Whisper on short windows.

Robust Speech Recognition via Large-Scale Weak Supervision, arXiv 2212.04356. Parameter names are
those of transformers, whose class insists on windows of 30 s. Axes: ``batch mels frames`` of the
spectrogram, then ``batch tokens dim``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.encoders.media import Waveform
from pathweave.encoders.spectrogram import (
    power_spectrum,
    slaney_frequency,
    slaney_mel,
    triangles,
)
from pathweave.encoders.waveforms import stack_waveforms
from pathweave.encoders.weights import REMEDY, load_weights
from pathweave.errors import FetchError, MediaError, RecipeError
from pathweave.storage.atomic import read_json

_BATCH = 32


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float32[Tensor, "batch tokens dim"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = _Attention(dim, num_heads)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(
        self, x: Float32[Tensor, "batch tokens dim"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperNetwork(nn.Module):
    """Two convolutions, the second of which halves the frames, then transformer layers.

    Args:
        num_mels: Mel bands of the spectrogram.
        width: Width of a token.
        num_layers: Number of transformer layers.
        num_heads: Attention heads per layer.
        max_positions: Longest input, in tokens.

    Example:
        >>> network = WhisperNetwork(80, width=8, num_layers=1, num_heads=2, max_positions=50)
        >>> network(torch.zeros(1, 80, 20)).shape
        torch.Size([1, 10, 8])
    """

    def __init__(
        self, num_mels: int, width: int, num_layers: int, num_heads: int, max_positions: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(num_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(max_positions, width)
        self.layers = nn.ModuleList(_Layer(width, num_heads) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(
        self, mels: Float32[Tensor, "batch mels frames"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        """Return one token per two frames."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mels)))).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


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
    power = power_spectrum(samples, window, hop, is_centred=True)[..., :-1]
    log = torch.log10((filters @ power).clamp(min=1e-10))
    return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8) + 4) / 4


class WhisperEncoder:
    """Sounds at 16 kHz to the tokens of Whisper's encoder, averaged over neighbours.

    A window is a whole sound. The last step is a layer norm, so values are of the order of 1: over
    short sounds their mean is about 0 and their deviation about 1.

    Args:
        directory: Directory with ``config.json`` and ``model.safetensors``, see
            ``pathweave.bases``.
        pool: Number of neighbouring tokens (20 ms each) that are averaged to one.

    Raises:
        RecipeError: If ``pool`` is not positive.
    """

    accepts: type = Waveform

    def __init__(self, directory: Path, pool: int = 5) -> None:
        if pool < 1:
            raise RecipeError(f"pool must be positive, got {pool}; 5 is a good start")
        rule = f"{directory} must hold the weights of an encoder"
        config = read_json(directory / "config.json", rule, REMEDY, FetchError)
        self.pool = pool
        self.rate = config["rate"]
        self.width = config["width"]
        # A token stands for two frames of the spectrogram.
        self.max_seconds = config["max_positions"] * 2 * config["hop"] / self.rate
        self.network = WhisperNetwork(
            config["num_mels"],
            config["width"],
            config["num_layers"],
            config["num_heads"],
            config["max_positions"],
        )
        weights = load_weights(self.network, directory)
        self.fingerprint = f"whisper pool={pool} weights={weights}"

    def __call__(self, media: Sequence[Waveform]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return ``[1, tokens, width]`` for each sound; a token per ``20 ms * pool``.

        Raises:
            MediaError: If a sound has another rate or is longer than 30 s.
        """
        results: list[Tensor] = []
        for batch in stack_waveforms(media, self.rate, _BATCH):
            if batch.shape[1] > self.max_seconds * self.rate:
                raise MediaError(
                    f"sounds must be at most {self.max_seconds:.0f} s long, got "
                    f"{batch.shape[1] / self.rate:.1f} s; lower the decoder's seconds"
                )
            with torch.no_grad():
                tokens = self.network(log_mel(batch)).transpose(1, 2)
                pooled = F.avg_pool1d(tokens, min(self.pool, tokens.shape[2]), ceil_mode=True)
            results.extend(pooled.transpose(1, 2).contiguous().unsqueeze(1))
        return results
