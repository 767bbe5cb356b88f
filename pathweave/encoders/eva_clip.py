"""EVA-CLIP's ViT-g/14, the frozen encoder of pictures in BLIP-2, InstructBLIP and the paper.

EVA: Exploring the Limits of Masked Visual Representation Learning at Scale, arXiv 2211.07636. The
network is transformers' ``InstructBlipVisionModel``. Axes: ``frames 3 size size``, then ``frames
tokens width``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from pathweave.encoders.eva_weights import load_vision_model
from pathweave.encoders.media import Frames
from pathweave.encoders.published import device
from pathweave.storage.tensors import tensors_hash

_BATCH = 16
# Of CLIP's training data, for pixels in [0, 1].
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class EvaClip:
    """Frames to the tokens of the ViT's last block, before any norm.

    The norm that follows it in InstructBLIP is the input norm of the path. A frame is resized to a
    square, whatever its shape.

    Args:
        directory: A directory of an InstructBLIP or BLIP-2 in transformers' format, or LAVIS'
            ``eva_vit_g.pth``, or a directory that holds it (docs/encoders.md).
        precision: ``half`` computes matrix products in 16 bits where the processor does so
            natively, with residuals and norms in float32; ``full`` is float32 throughout.
        size: Side of the square, pixels; a multiple of the patch (14). None is the size that the
            weights were made for; for others, the position embeddings are interpolated.

    Raises:
        FetchError: If the weights are missing, damaged, or of another model.
        RecipeError: If the size does not fit the patches.
    """

    accepts: type = Frames

    def __init__(
        self,
        directory: Path,
        precision: Literal["half", "full"] = "half",
        size: int | None = None,
    ) -> None:
        self.dtype = half_dtype() if precision == "half" else torch.float32
        self.network = load_vision_model(directory, size, self.dtype)
        self.size = int(self.network.config.image_size)
        self.width = int(self.network.config.hidden_size)
        weights = tensors_hash(self.network.state_dict())[:16]
        self.network.to(device())
        precise = str(self.dtype).removeprefix("torch.")
        self.fingerprint = f"eva-clip-g size={self.size} precision={precise} weights={weights}"

    def __call__(self, media: Sequence[Frames]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return ``[frames, 1 + (size / 14) ** 2, width]`` for each medium."""
        # Resized one by one: all frames at full size may not fit into memory.
        resized = [self._resize(medium) for medium in media]
        counts = [len(frames) for frames in resized]
        if not counts:
            return []
        tokens = [self.encode(_normalised(batch)) for batch in torch.cat(resized).split(_BATCH)]
        return list(torch.cat(tokens).split(counts))

    def encode(
        self, pixels: Float32[Tensor, "frames 3 size size"]
    ) -> Float32[Tensor, "frames tokens width"]:
        """Return the tokens of normalised pixels, the class token first."""
        embed = self.network.embeddings
        is_half = self.dtype != torch.float32
        with torch.no_grad(), torch.autocast(device().type, self.dtype, enabled=is_half):
            patches = embed.patch_embedding(pixels.to(device())).flatten(2).transpose(1, 2).float()
            first = embed.class_embedding.expand(len(patches), -1, -1)
            x = torch.cat([first, patches], dim=1) + embed.position_embedding
            return self.network.encoder(inputs_embeds=x).last_hidden_state.float().cpu()

    def _resize(self, frames: Frames) -> UInt8[Tensor, "frames 3 size size"]:
        # Pillow, as in training: other libraries round between rows and columns elsewhere.
        square = [
            np.asarray(Image.fromarray(pixels).resize((self.size, self.size), Resampling.BICUBIC))
            for pixels in frames.pixels
        ]
        return torch.tensor(np.stack(square)).permute(0, 3, 1, 2)


def half_dtype() -> torch.dtype:
    """Return the 16-bit type for a network of published half-precision weights.

    It is float16 on a graphics processor, as in training, else bfloat16 where the processor
    multiplies it natively, else float32.
    """
    # That module imports transformers, which takes seconds.
    from pathweave.model.base import native_dtype

    return torch.float16 if torch.cuda.is_available() else native_dtype()


def _normalised(
    pixels: UInt8[Tensor, "frames 3 size size"],
) -> Float32[Tensor, "frames 3 size size"]:
    mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std
