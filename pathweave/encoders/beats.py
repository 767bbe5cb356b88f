"""BEATs, the frozen encoder of sounds in the paper.

BEATs: Audio Pre-Training with Acoustic Tokenizers, arXiv 2212.09058: patches of a filter bank, a
convolution that tells them their place, and transformer layers with residuals scaled as in DeepNet
(arXiv 2203.00555) and a relative position bias gated by the queries. Parameter names are those of
the published checkpoint. Axes: ``batch frames mels`` of the filter bank, then ``batch tokens dim``;
``heads queries keys`` of the bias.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.kaldi import HOP, RATE, WINDOW, filter_bank
from pathweave.encoders.media import Waveform
from pathweave.encoders.published import Published, assign, placed
from pathweave.encoders.waveforms import samples_at
from pathweave.errors import RecipeError

PUBLISHED = Published(
    "BEATs iter3+ (AS2M)",
    (
        "BEATs_iter3_plus_AS2M.pt",
        "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
        "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt",
    ),
    "https://github.com/microsoft/unilm/tree/master/beats",
    "MIT",
)
_BATCH = 16
_FRAMES, _MELS = 512, 128
# Mean and twice the deviation over AudioSet.
_MEAN, _SPREAD = 15.41663, 2 * 6.55582
# The variant that was published; the authors' program knows others.
_VARIANT = {
    "activation_fn": "gelu",
    "conv_bias": False,
    "deep_norm": True,
    "gru_rel_pos": True,
    "layer_norm_first": False,
    "relative_position_embedding": True,
}
_BIAS = "self_attn.relative_attention_bias.weight"


@dataclass(frozen=True)
class BeatsShape:
    """Sizes of a network, as published; fields are named as in a checkpoint's ``cfg``."""

    input_patch_size: int = 16
    embed_dim: int = 512
    encoder_embed_dim: int = 768
    encoder_layers: int = 12
    encoder_attention_heads: int = 12
    encoder_ffn_embed_dim: int = 3072
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800


def buckets(
    relative: Int64[Tensor, "*shape"], num_buckets: int, max_distance: int
) -> Int64[Tensor, "*shape"]:
    """Return the bucket of each signed distance: exact when near, logarithmic when far.

    Half of the buckets are for keys after the query, half for the others; of each half, the first
    half is exact. It is the rule of T5 (arXiv 1910.10683, sec. 2.1).
    """
    half = num_buckets // 2
    exact = half // 2
    distance = relative.abs()
    growth = math.log(max_distance / exact)
    far = torch.log(distance.clamp(min=1).double() / exact) / growth * (half - exact) + exact
    # A distance on the border of two buckets must not fall below it by rounding.
    bucket = torch.where(distance < exact, distance, (far + 1e-9).long().clamp(max=half - 1))
    return bucket + half * (relative > 0)


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.grep_linear = nn.Linear(dim // num_heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, num_heads, 1, 1))

    def forward(
        self,
        x: Float32[Tensor, "batch tokens dim"],
        bias: Float32[Tensor, "heads tokens tokens"],
    ) -> Float32[Tensor, "batch tokens dim"]:
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._gate(q) * bias)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _gate(
        self, queries: Float32[Tensor, "batch heads tokens head_dim"]
    ) -> Float32[Tensor, "batch heads tokens 1"]:
        update, reset = (
            self.grep_linear(queries).unflatten(-1, (2, 4)).sum(-1).sigmoid().split(1, -1)
        )
        return update * (reset * self.grep_a - 1) + 2


class _Layer(nn.Module):
    def __init__(self, shape: BeatsShape) -> None:
        super().__init__()
        dim, inner = shape.encoder_embed_dim, shape.encoder_ffn_embed_dim
        self.residual = (2 * shape.encoder_layers) ** 0.25
        self.self_attn = _Attention(dim, shape.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Float32[Tensor, "batch tokens dim"],
        bias: Float32[Tensor, "heads tokens tokens"],
    ) -> Float32[Tensor, "batch tokens dim"]:
        x = self.self_attn_layer_norm(self.residual * x + self.self_attn(x, bias))
        return self.final_layer_norm(self.residual * x + self.fc2(F.gelu(self.fc1(x))))


class _Encoder(nn.Module):
    def __init__(self, shape: BeatsShape) -> None:
        super().__init__()
        dim = shape.encoder_embed_dim
        self.num_buckets, self.max_distance = shape.num_buckets, shape.max_distance
        self.pos_conv = nn.Conv1d(
            dim, dim, shape.conv_pos, padding=shape.conv_pos // 2, groups=shape.conv_pos_groups
        )
        self.layer_norm = nn.LayerNorm(dim)
        self.relative_attention_bias = nn.Embedding(
            shape.num_buckets, shape.encoder_attention_heads
        )
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.encoder_layers))

    def forward(
        self, x: Float32[Tensor, "batch tokens dim"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        # An even filter gives one position more than there are tokens.
        places = self.pos_conv(x.transpose(1, 2))[..., : x.shape[1]]
        x = self.layer_norm(x + F.gelu(places).transpose(1, 2))
        bias = self.position_bias(x.shape[1])
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def position_bias(self, tokens: int) -> Float32[Tensor, "heads tokens tokens"]:
        place = torch.arange(tokens, device=self.relative_attention_bias.weight.device)
        relative = place[None, :] - place[:, None]
        bucket = buckets(relative, self.num_buckets, self.max_distance)
        return self.relative_attention_bias(bucket).permute(2, 0, 1)


class BeatsNetwork(nn.Module):
    """The network from a normalised filter bank to the last layer's tokens.

    Example:
        >>> shape = BeatsShape(16, 4, 8, 1, 2, 16, 4, 2, 8, 20)
        >>> BeatsNetwork(shape)(torch.zeros(1, 40, 128)).shape
        torch.Size([1, 16, 8])
    """

    def __init__(self, shape: BeatsShape) -> None:
        super().__init__()
        patch, embed_dim = shape.input_patch_size, shape.embed_dim
        self.patch_embedding = nn.Conv2d(1, embed_dim, patch, stride=patch, bias=False)
        self.layer_norm = nn.LayerNorm(embed_dim)
        is_same = embed_dim == shape.encoder_embed_dim
        self.post_extract_proj = (
            nn.Identity() if is_same else nn.Linear(embed_dim, shape.encoder_embed_dim)
        )
        self.encoder = _Encoder(shape)

    def forward(
        self, mels: Float32[Tensor, "batch frames mels"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        """Return a token per patch, the patches of one time after another, from low to high.

        Frames that do not fill a patch are left out.
        """
        patches = self.patch_embedding(mels.unsqueeze(1)).flatten(2).transpose(1, 2)
        return self.encoder(self.post_extract_proj(self.layer_norm(patches)))


def read_beats(file: Path) -> BeatsNetwork:
    """Return the network of a published checkpoint, pretrained or fine-tuned, without classifier.

    Raises:
        FetchError: If the file is damaged or of another model.
    """
    content = PUBLISHED.read(file)
    if not isinstance(content.get("cfg"), Mapping) or "model" not in content:
        raise PUBLISHED.wrong(file, "hold cfg and model", f"{sorted(map(str, content))[:5]}")
    shape = _shape(content["cfg"], file)
    state = PUBLISHED.tensors(content["model"], file)
    with torch.device("meta"):
        network = BeatsNetwork(shape)
    assign(network, _own_names(state, shape, file), file, PUBLISHED)
    return network


def _shape(cfg: Mapping[str, Any], file: Path) -> BeatsShape:
    for name, value in _VARIANT.items():
        if cfg.get(name) != value:
            raise PUBLISHED.wrong(file, f"have {name} {value} in its cfg", repr(cfg.get(name)))
    sizes = {name: cfg.get(name) for name in BeatsShape.__dataclass_fields__}
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise PUBLISHED.wrong(file, f"have a positive {name} in its cfg", repr(size))
    dim = cfg["encoder_embed_dim"]
    for name in ("encoder_attention_heads", "conv_pos_groups"):
        if dim % cfg[name]:
            rule = f"have an encoder_embed_dim that {name} {cfg[name]} divides"
            raise PUBLISHED.wrong(file, rule, str(dim))
    return BeatsShape(**sizes)  # type: ignore[arg-type]


def _own_names(state: Mapping[str, Tensor], shape: BeatsShape, file: Path) -> dict[str, Tensor]:
    """Return the tensors under the network's names, and nothing that it has no use for."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith("predictor.")}
    # All layers share the first one's table; the file repeats it.
    copies = [own.pop(f"encoder.layers.{i}.{_BIAS}", None) for i in range(shape.encoder_layers)]
    if copies[0] is not None:
        for copy in copies[1:]:
            if copy is not None and not torch.equal(copy, copies[0]):
                raise PUBLISHED.wrong(file, "share one position bias among layers", "several")
        own["encoder.relative_attention_bias.weight"] = copies[0]
    prefix = "encoder.pos_conv.0."
    scale, direction = own.pop(prefix + "weight_g", None), own.pop(prefix + "weight_v", None)
    if scale is not None and direction is not None:
        # Weight normalisation (arXiv 1602.07868) over everything but the place in the filter.
        own["encoder.pos_conv.weight"] = (
            scale * direction / direction.norm(dim=(0, 1), keepdim=True)
        )
    if prefix + "bias" in own:
        own["encoder.pos_conv.bias"] = own.pop(prefix + "bias")
    return {name: tensor.float() for name, tensor in own.items()}


class Beats(NetworkEncoder):
    """Sounds at 16 kHz to BEATs tokens, in windows of 512 frames of the filter bank (5.12 s).

    A sound is cut after the last window; a shorter one is followed by frames of zeros, as in the
    authors' training. The last step is a layer norm.

    Args:
        directory: The published checkpoint, or a directory that holds it (docs/encoders.md).
        windows: Windows of each sound.
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If ``windows`` is not positive.
        FetchError: If the checkpoint is missing, damaged, or of another model.
    """

    accepts: type = Waveform
    rate: int = RATE

    def __init__(self, directory: Path, windows: int = 2, *, with_weights: bool = True) -> None:
        if windows < 1:
            raise RecipeError(f"windows must be positive, got {windows}; 2 cover 10.24 s")
        self.windows = windows
        self.batch = max(1, _BATCH // windows)
        self.network = (
            read_beats(PUBLISHED.find(directory)) if with_weights else BeatsNetwork(BeatsShape())
        )
        weights = placed(self.network) if with_weights else None
        self.width = self.network.encoder.layer_norm.normalized_shape[0]
        self.fingerprint = f"beats windows={windows} weights={weights}"

    def units(self, medium: Waveform) -> list[Float32[Tensor, " samples"]]:
        """Return the samples of a sound."""
        return [samples_at(medium, self.rate)]

    def prepare(
        self, batch: Float32[Tensor, "batch samples"]
    ) -> Float32[Tensor, "batch_windows 512 128"]:
        """Return the filter bank of the windows of each sound."""
        num_frames = self.windows * _FRAMES
        samples = batch[:, : WINDOW + HOP * (num_frames - 1)]
        # Shorter sounds have no whole frame.
        samples = F.pad(samples, (0, max(0, WINDOW - samples.shape[1])))
        mels = (filter_bank(samples, _MELS) - _MEAN) / _SPREAD
        mels = F.pad(mels, (0, 0, 0, num_frames - mels.shape[1]))
        return mels.unflatten(1, (self.windows, _FRAMES)).flatten(0, 1)

    def encode(
        self, inputs: Float32[Tensor, "batch_windows 512 128"]
    ) -> Float32[Tensor, "batch windows 256 width"]:
        """Return the tokens of each window; 8 per 160 ms."""
        tokens = torch.cat([self.network(part) for part in inputs.split(_BATCH)])
        return tokens.unflatten(0, (-1, self.windows))
