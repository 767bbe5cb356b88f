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

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.eva_weights import load_vision_model
from pathweave.encoders.media import Frames
from pathweave.encoders.published import device, placed

# Of CLIP's training data, for pixels in [0, 1].
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class EvaClip(NetworkEncoder):
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
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        FetchError: If the weights are missing, damaged, or of another model.
        RecipeError: If the size does not fit the patches.
    """

    accepts: type = Frames
    batch: int = 16

    def __init__(
        self,
        directory: Path,
        precision: Literal["half", "full"] = "half",
        size: int | None = None,
        *,
        with_weights: bool = True,
    ) -> None:
        self.dtype = half_dtype() if precision == "half" else torch.float32
        self.network = load_vision_model(directory, size, self.dtype if with_weights else None)
        self.size = int(self.network.config.image_size)
        self.width = int(self.network.config.hidden_size)
        weights = placed(self.network) if with_weights else None
        precise = str(self.dtype).removeprefix("torch.")
        self.fingerprint = f"eva-clip-g size={self.size} precision={precise} weights={weights}"

    def units(self, medium: Frames) -> Sequence[UInt8[Tensor, "3 size size"]]:
        """Return the frames of a medium, resized."""
        # Pillow, as in training: other libraries round between rows and columns elsewhere.
        square = [
            np.asarray(Image.fromarray(pixels).resize((self.size, self.size), Resampling.BICUBIC))
            for pixels in medium.pixels
        ]
        return torch.tensor(np.stack(square)).permute(0, 3, 1, 2).unbind()

    def prepare(
        self, batch: UInt8[Tensor, "frames 3 size size"]
    ) -> Float32[Tensor, "frames 3 size size"]:
        """Return pixels on the scale of CLIP."""
        mean, std = torch.tensor([_MEAN, _STD], device=batch.device).view(2, 3, 1, 1)
        # The colours of a pixel stay side by side.
        pixels = batch.contiguous(memory_format=torch.channels_last)
        return (pixels.float() / 255 - mean) / std

    def encode(
        self, inputs: Float32[Tensor, "frames 3 size size"]
    ) -> Float32[Tensor, "frames tokens width"]:
        """Return ``1 + (size / 14) ** 2`` tokens of normalised pixels, the class token first."""
        embed = self.network.embeddings
        is_half = self.dtype != torch.float32
        with torch.autocast(device().type, self.dtype, enabled=is_half):
            patches = embed.patch_embedding(inputs).flatten(2).transpose(1, 2).float()
            first = embed.class_embedding.expand(len(patches), -1, -1)
            x = torch.cat([first, patches], dim=1) + embed.position_embedding
            return self.network.encoder(inputs_embeds=x).last_hidden_state.float()


def half_dtype() -> torch.dtype:
    """Return the 16-bit type for a network of published half-precision weights.

    It is float16 on a graphics processor, as in training, else bfloat16 where the processor
    multiplies it natively, else float32.
    """
    # That module imports transformers, which takes seconds.
    from pathweave.model.base import native_dtype

    return torch.float16 if torch.cuda.is_available() else native_dtype()
