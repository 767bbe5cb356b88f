"""The woven linear map from the Q-Former's width into the language model's embedding space."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.nn.woven import Route, WovenLinear

PROJECTOR_SITE = "projector"


class Projector(nn.Module):
    """Linear projector, optionally brought to the scale of the language model's embeddings.

    Args:
        dim: Width of the Q-Former.
        out_dim: Width of the language model's embeddings.
        scale: Standard deviation of the output per token. None leaves the projection as it is
            (InstructBLIP, BLIP-2). A connector trained from scratch needs it: tokens far off the
            scale of embeddings make a frozen language model ignore or parrot them.
    """

    def __init__(self, dim: int, out_dim: int, scale: float | None = None):
        super().__init__()
        self.linear = WovenLinear(nn.Linear(dim, out_dim), PROJECTOR_SITE)
        self.scale = scale

    def forward(
        self, x: Float[Tensor, "batch queries dim"], route: Route
    ) -> Float[Tensor, "batch queries out"]:
        """Return tokens in the language model's embedding space."""
        y = self.linear(x, route)
        return y if self.scale is None else F.layer_norm(y, y.shape[-1:]) * self.scale
