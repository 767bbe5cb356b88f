"""EfficientNet-Lite0, the frozen encoder of anything that can be shown as pictures.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv 1905.11946; the Lite
variant has no squeeze-and-excitation and uses ReLU6. Parameter names are those of the published
weights. Axes: ``frames channels height width``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.media import Frames
from pathweave.encoders.weights import load_weights
from pathweave.errors import RecipeError

_STRIDE = 32
# repeats, kernel size, stride of the first block, expansion, channels out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution without bias whose output has ``ceil(input / stride)`` rows and columns.

    The padding is uneven where it must be, as in TensorFlow, where the weights were trained.
    """

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(
        self, x: Float32[Tensor, "frames channels height width"]
    ) -> Float32[Tensor, "frames out rows columns"]:
        """Return the convolution of ``x``."""
        left, right = _padding(x.shape[3], self.kernel_size[1], self.stride[1])
        top, bottom = _padding(x.shape[2], self.kernel_size[0], self.stride[0])
        return super().forward(F.pad(x, (left, right, top, bottom)))


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted bottleneck: widen, filter each channel, narrow; added to its input if it fits.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        kernel: Size of the filter, pixels.
        stride: Step of the filter, pixels.
        expansion: Ratio of the inner to the outer number of channels; 1 leaves out the widening.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.is_wider = expansion > 1
        self.is_residual = stride == 1 and channels == out
        if self.is_wider:
            self._expand_conv = SameConv2d(channels, inner, 1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = SameConv2d(inner, out, 1)
        self._bn2 = _norm(out)

    def forward(
        self, x: Float32[Tensor, "frames channels height width"]
    ) -> Float32[Tensor, "frames out rows columns"]:
        """Return the filtered picture."""
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.is_wider else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + inner if self.is_residual else inner


class EfficientNet(nn.Module):
    """The network up to its last feature map; its ImageNet classifier serves to check weights.

    Example:
        >>> EfficientNet().eval()(torch.zeros(1, 3, 96, 96)).shape
        torch.Size([1, 1280, 3, 3])
    """

    width = 1280

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        self._conv_stem = SameConv2d(3, channels, 3, stride=2)
        self._bn0 = _norm(channels)
        blocks = []
        for repeats, kernel, first_stride, expansion, out in _STAGES:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                blocks.append(Block(channels, out, kernel, stride, expansion))
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(channels, self.width, 1)
        self._bn1 = _norm(self.width)
        self._fc = nn.Linear(self.width, 1000)

    def forward(
        self, x: Float32[Tensor, "frames 3 height width"]
    ) -> Float32[Tensor, "frames 1280 rows columns"]:
        """Return the last feature map; one cell per 32 x 32 pixels, values in [0, 6]."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        return F.relu6(self._bn1(self._conv_head(self._blocks(x))))


class EfficientNetLite0(NetworkEncoder):
    """Frames to the cells of EfficientNet-Lite0's last feature map, row by row.

    Each frame is resized to a square, whatever its shape. Values are in [0, 6] and sparse: over
    pictures of clothes their mean is 0.5 and their deviation 1.2.

    Args:
        directory: Directory with ``model.safetensors``, see ``pathweave.bases``.
        size: Side of the square, pixels; a positive multiple of 32. There are ``(size / 32) ** 2``
            tokens per frame.
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If ``size`` is not a positive multiple of 32.
    """

    accepts: type = Frames
    batch: int = 64
    width: int = EfficientNet.width

    def __init__(self, directory: Path, size: int = 96, *, with_weights: bool = True) -> None:
        if size < _STRIDE or size % _STRIDE:
            raise RecipeError(
                f"size must be a positive multiple of {_STRIDE}, got {size}; 96 is a good start"
            )
        self.size = size
        self.network = EfficientNet()
        weights = load_weights(self.network, directory) if with_weights else None
        self.fingerprint = f"efficientnet-lite0 size={size} weights={weights}"

    def units(self, medium: Frames) -> Sequence[Float32[Tensor, "3 size size"]]:
        """Return the frames of a medium, resized."""
        pixels = torch.tensor(medium.pixels).permute(0, 3, 1, 2).float()
        square = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        # The scale used in training: mean 127, deviation 128 for all three colours.
        return ((square - 127) / 128).unbind()

    def prepare(
        self, batch: Float32[Tensor, "frames 3 size size"]
    ) -> Float32[Tensor, "frames 3 size size"]:
        """Return frames with the colours of a pixel side by side: rounding depends on it."""
        return batch.contiguous(memory_format=torch.channels_last)

    def encode(
        self, inputs: Float32[Tensor, "frames 3 size size"]
    ) -> Float32[Tensor, "frames tokens 1280"]:
        """Return the ``(size / 32) ** 2`` cells of the last feature map, row by row."""
        return self.network(inputs).flatten(2).transpose(1, 2)
