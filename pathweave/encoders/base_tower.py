"""The tower of a vision LLM as an encoder: for senses that look like pictures.

No family is named here. The model says which of its modules reads pictures, its processor makes
what that is given, and what it makes of them is taken before the model's connector.
"""

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pathweave.encoders.encoder import NetworkEncoder
from pathweave.encoders.inner_encoder import InnerEncoder, as_tokens, processed_pictures
from pathweave.encoders.media import Frames
from pathweave.errors import MediaError, RecipeError

_REMEDY = "name another encoder, such as one of kind: transformers"
# Whether a call of this context wants what the tower gives; other threads have calls of their own.
_IS_READ: ContextVar[bool] = ContextVar("is_read", default=False)


class VisionLlmReader(NamedTuple):
    """A vision LLM that is a base, and its processor, both of transformers.

    Attributes:
        model: The model.
        processor: Its processor.
        kind: Kind of the pictures that it reads, as they call it; None if it reads none.
    """

    model: Any
    processor: Any
    kind: str | None


class BaseTower(NetworkEncoder):
    """The features that a vision LLM's own tower makes of pictures, before its connector.

    A picture, or a frame, is a unit, and a patch a token; a tower with a class token gives that
    too. Where the processor cuts a picture into tiles, the patches of all are tokens of the unit.

    Args:
        pool: Number of neighbouring tokens of a unit that are averaged to one; None keeps all.
        reader: The base; None if it is no vision LLM.

    Raises:
        RecipeError: If an option has a wrong value, the base has no tower for pictures, or one that
            transformers cannot name.
    """

    accepts: type = Frames
    batch = 1  # inputs of several pictures are put together in another way by each family

    def __init__(self, pool: int | None = None, *, reader: VisionLlmReader | None = None) -> None:
        if pool is not None and pool < 1:
            raise RecipeError(f"pool must be positive, got {pool}; leave it out to keep all tokens")
        if reader is None or reader.kind is None:
            raise RecipeError(
                "encoder 'base' must go with a vision LLM as base, whose tower reads pictures, got "
                f"a base without a tower; {_REMEDY}"
            )
        self.pool, self._model = pool, reader.model
        self.network = _tower(reader.model, reader.kind)
        self.processor = getattr(reader.processor, f"{reader.kind}_processor")
        # Only the model knows what its tower must be told of a picture.
        self._read = getattr(reader.model, f"get_{reader.kind}_features", self.network)
        if not any(hook is _give for hook in self.network._forward_hooks.values()):
            self.network.register_forward_hook(_give)
        if self._model.get_input_embeddings().weight.is_meta:
            return
        noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
        self.width = self([Frames(noise)])[0].shape[2]
        content = InnerEncoder(self.network, self.processor, frozenset()).fingerprint()
        dtype = str(self._model.dtype).removeprefix("torch.")
        self.fingerprint = (
            f"base pool={pool} dtype={dtype} processor={type(self.processor).__name__} {content}"
        )

    def units(self, medium: Any) -> list[dict[str, Tensor]]:  # noqa: ANN401
        """Return what the model is given of each picture.

        Raises:
            MediaError: If a medium is of the wrong kind, or the processor refuses it.
        """
        if not isinstance(medium, Frames):
            raise MediaError(
                f"encoder 'base' must be given Frames, got {type(medium).__name__}; pair it with "
                "a decoder of pictures"
            )
        known = inspect.signature(getattr(self._read, "forward", self._read)).parameters
        units = []
        for i in range(len(medium.pixels)):
            try:
                read = processed_pictures(self.processor, medium.pixels[i : i + 1].copy())
            except (RuntimeError, ValueError, IndexError) as error:
                raise self._misfit(medium.pixels.shape, error) from error
            tensors = {name: torch.as_tensor(read[name]) for name in read if name in known}
            units.append({name: self._cast(value) for name, value in tensors.items()})
        return units

    def encode(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "1 tokens width"]:
        """Return the tokens of what the model is given of one picture.

        Raises:
            MediaError: If it does not fit the tower.
        """
        own = {name: value[0] for name, value in inputs.items()}
        token = _IS_READ.set(True)
        try:
            self._read(**own)
        except _Given as given:
            state = getattr(given.output, "last_hidden_state", None)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._misfit({n: tuple(t.shape) for n, t in own.items()}, error) from error
        else:
            state = None
        finally:
            _IS_READ.reset(token)
        if not isinstance(state, Tensor):
            raise RecipeError(
                f"encoder 'base' must go with a tower that gives last_hidden_state, got a "
                f"{type(self.network).__name__} that does not; {_REMEDY}"
            )
        # Of patches that only fill a batch up, the mask says so.
        mask = own.get("pixel_attention_mask")
        if mask is not None and mask.shape == state.shape[:-1]:
            state = state[mask.bool()]
        return as_tokens(state.flatten(0, -2)[None], self.pool)

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self._model.dtype) if value.is_floating_point() else value

    def _misfit(self, shape: object, error: Exception) -> MediaError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return MediaError(
            f"encoder 'base' must be given pictures that fit the tower of the base, got the shape "
            f"{shape} ({reason}); take larger ones, or another encoder"
        )


def _tower(model: Any, kind: str) -> Any:  # noqa: ANN401 (of transformers)
    tower = model.get_encoder(modality=kind)
    # A model that cannot name it answers with itself.
    if tower in (model, model.base_model, model.get_decoder()):
        raise RecipeError(
            "encoder 'base' must go with a vision LLM whose tower for pictures transformers can "
            f"name, got a {type(model).__name__}, which names none; {_REMEDY}"
        )
    return tower


class _Given(Exception):
    """What a tower has given; what the model would do with it is left out."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output


def _give(_: nn.Module, __: object, output: object) -> None:
    if _IS_READ.get():
        raise _Given(output)
