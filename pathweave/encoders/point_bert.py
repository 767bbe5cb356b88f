"""Point-BERT as trained in ULIP-2, the frozen encoder of clouds of points in the paper.

Point-BERT, arXiv 2111.14819; ULIP-2, arXiv 2305.08275: groups of neighbouring points, a small
network that makes each a token, a vision transformer over the tokens, and a projection into the
space of pictures and text. Parameter names are those of the published checkpoint. Axes: ``batch
points 3`` of the cloud, ``batch groups points 3`` of the groups, then ``batch tokens dim``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.media import Array
from pathweave.encoders.point_groups import at_indices, farthest_points, nearest_points
from pathweave.encoders.published import Published, assign, placed
from pathweave.errors import MediaError, RecipeError

PUBLISHED = Published(
    "ULIP-2 Point-BERT (8,192 points, coordinates only)",
    (
        "pointbert_ULIP-2.pt",
        "pretrained_models_ckpt_zero-sho_classification_pointbert_ULIP-2.pt",
        "ULIP-2-PointBERT-8k-xyz-pc-slip_vit_b-objaverse-pretrained.pt",
    ),
    "https://storage.googleapis.com/sfr-ulip-code-release-research/pretrained_models/"
    "ckpt_zero-sho_classification/pointbert_ULIP-2.pt",
    "BSD-3-Clause",
)
# The other encoders that the checkpoint was trained with, and the temperature of their loss.
_UNUSED = (
    "image_projection",
    "ln_final.",
    "logit_scale",
    "positional_embedding",
    "text_projection",
    "token_embedding.",
    "transformer.",
    "visual.",
)


@dataclass(frozen=True)
class PointBertShape:
    """Sizes of a network; the defaults are those of ULIP-2."""

    groups: int = 512
    group_size: int = 32
    group_dim: int = 256
    dim: int = 384
    num_blocks: int = 12
    num_heads: int = 6
    out: int = 512


SHAPE = PointBertShape()


class _GroupEncoder(nn.Module):
    """Every point sees the largest values over its group, then the group is one vector."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), nn.Conv1d(128, 256, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(), nn.Conv1d(512, out, 1)
        )

    def forward(
        self, groups: Float32[Tensor, "batch groups points 3"]
    ) -> Float32[Tensor, "batch groups out"]:
        x = self.first_conv(groups.flatten(0, 1).transpose(1, 2))
        whole = x.amax(2, keepdim=True).expand_as(x)
        x = self.second_conv(torch.cat([whole, x], dim=1)).amax(2)
        return x.unflatten(0, groups.shape[:2])


class _Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float32[Tensor, "batch tokens dim"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(
        self, x: Float32[Tensor, "batch tokens dim"]
    ) -> Float32[Tensor, "batch tokens dim"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PointBertNetwork(nn.Module):
    """The network from a cloud to its vector in the space of ULIP-2.

    Example:
        >>> shape = PointBertShape(groups=4, group_size=2, dim=8, num_blocks=1, num_heads=2)
        >>> PointBertNetwork(shape).eval()(torch.rand(1, 16, 3)).shape
        torch.Size([1, 512])
    """

    def __init__(self, shape: PointBertShape) -> None:
        super().__init__()
        dim = shape.dim
        self.shape = shape
        self.encoder = _GroupEncoder(shape.group_dim)
        self.reduce_dim = nn.Linear(shape.group_dim, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))
        self.blocks = nn.ModuleList(_Block(dim, shape.num_heads) for _ in range(shape.num_blocks))
        self.norm = nn.LayerNorm(dim)
        self.pc_projection = nn.Parameter(torch.zeros(2 * dim, shape.out))

    def forward(
        self, cloud: Float32[Tensor, "batch points 3"], start: int = 0
    ) -> Float32[Tensor, "batch out"]:
        """Return one vector per cloud.

        Args:
            cloud: Coordinates in the unit ball.
            start: Index of the first centre; the authors drew it at random.
        """
        centres = at_indices(cloud, farthest_points(cloud, self.shape.groups, start))
        members = at_indices(cloud, nearest_points(cloud, centres, self.shape.group_size))
        tokens = self.reduce_dim(self.encoder(members - centres.unsqueeze(2)))
        places = self.pos_embed(centres)
        x = torch.cat([self.cls_token.expand(len(cloud), -1, -1), tokens], dim=1)
        place = torch.cat([self.cls_pos.expand(len(cloud), -1, -1), places], dim=1)
        for block in self.blocks:
            x = block(x + place)
        x = self.norm(x)
        return torch.cat([x[:, 0], x[:, 1:].amax(1)], dim=1) @ self.pc_projection


def read_point_bert(file: Path, shape: PointBertShape = SHAPE) -> PointBertNetwork:
    """Return the network of a published checkpoint, without the encoders it was trained with.

    Raises:
        FetchError: If the file is damaged or of another model.
    """
    content = PUBLISHED.read(file)
    state = PUBLISHED.tensors(content.get("state_dict", content), file)
    with torch.device("meta"):
        network = PointBertNetwork(shape)
    assign(network, _own_names(state, network), file, PUBLISHED)
    return network


def _own_names(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors under the network's names; names that are unknown stay as they are."""
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        # Training on several processors put a word before every name.
        name = name.removeprefix("module.")
        if name.startswith(_UNUSED):
            continue
        name = name.removeprefix("point_encoder.").replace("blocks.blocks.", "blocks.")
        own[name] = tensor.float() if tensor.is_floating_point() else tensor
    # The step counters of batch normalisation serve training alone.
    counters = {name for name, _ in network.named_buffers() if name.endswith("_tracked")}
    return {name: torch.tensor(0) for name in counters} | own


class PointBert(NetworkEncoder):
    """Clouds of points to one token each.

    The decoder is ``points`` with ``count: 8192``: the network was trained on clouds of so many
    points, centred and scaled into the unit ball. Values are of the order of 1.

    Args:
        directory: The published checkpoint, or a directory that holds it (docs/encoders.md).
        start: Index of the point where the choice of centres starts. The authors drew it at random
            for every cloud, so that features differed from call to call; here they do not.
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If ``start`` is negative.
        FetchError: If the checkpoint is missing, damaged, or of another model.
    """

    accepts: type = Array
    batch: int = 8

    def __init__(self, directory: Path, start: int = 0, *, with_weights: bool = True) -> None:
        if start < 0:
            raise RecipeError(f"start must be at least 0, got {start}; it is the index of a point")
        self.start = start
        self.network = (
            read_point_bert(PUBLISHED.find(directory), SHAPE)
            if with_weights
            else PointBertNetwork(SHAPE)
        )
        weights = placed(self.network) if with_weights else None
        self.width = self.network.shape.out
        self.fingerprint = f"ulip2 start={start} weights={weights}"

    def units(self, medium: Array) -> list[Float32[Tensor, "points 3"]]:
        """Return the points of a cloud.

        Raises:
            MediaError: If it is no cloud of finite points, or has too few of them.
        """
        values = medium.values
        rule = "set the decoder to {kind: points, count: 8192}"
        if values.shape[1] != 3:
            raise MediaError(f"clouds must have 3 columns, got {values.shape[1]}; {rule}")
        fewest = max(self.network.shape.group_size, self.start + 1)
        if len(values) < fewest:
            raise MediaError(f"clouds must have {fewest} points, got {len(values)}; {rule}")
        if not np.isfinite(values).all():
            raise MediaError(f"clouds must be finite, got NaN or infinity; {rule}")
        return [torch.tensor(values)]

    def encode(self, inputs: Float32[Tensor, "batch points 3"]) -> Float32[Tensor, "batch 1 out"]:
        """Return one token for each cloud."""
        return self.network(inputs, self.start).unsqueeze(1)
