"""Features that another program has computed."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from pathweave.encoders.media import Array
from pathweave.errors import MediaError, RecipeError
from pathweave.nn.positions import PositionKind


class Precomputed:
    """Hands arrays on as they are, one unit each; their scale is the user's affair.

    Args:
        width: Width that every token must have.

    Raises:
        RecipeError: If ``width`` is not positive.

    Example:
        >>> import numpy as np
        >>> encode = Precomputed(width=8)
        >>> [features] = encode([Array(np.ones((3, 8), dtype=np.float32))])
        >>> features.shape
        torch.Size([1, 3, 8])
    """

    accepts: type = Array
    positions: PositionKind = "sinusoidal"  # rows are a sequence unless a recipe declares a set

    def __init__(self, width: int) -> None:
        if width < 1:
            raise RecipeError(f"width must be positive, got {width}; give the width of your tokens")
        self.width = width
        self.fingerprint = f"precomputed width={width}"

    def __call__(self, media: Sequence[Array]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return ``[1, tokens, width]`` for each array.

        Raises:
            MediaError: If an array has another width.
        """
        for array in media:
            if array.values.shape[1] != self.width:
                raise MediaError(
                    f"tokens must have width {self.width}, got {array.values.shape[1]}; "
                    "set the encoder's width to it, or compute the features again"
                )
        return [torch.tensor(array.values).unsqueeze(0) for array in media]
