"""Any encoder of transformers, by its identifier on the hub or its directory.

Axes: ``units`` are frames, whole clips or windows of time; ``tokens`` of a unit, ``width`` of a
token.
"""

import inspect
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import default_collate

from pathweave.encoders.encoder import NetworkEncoder, moved, shapes
from pathweave.encoders.inner_encoder import (
    PICTURES,
    as_tokens,
    load_inner_encoder,
    processed_pictures,
)
from pathweave.encoders.media import Frames, Waveform
from pathweave.encoders.published import device
from pathweave.encoders.waveforms import samples_at
from pathweave.errors import FetchError, MediaError, RecipeError

Inputs = dict[str, Tensor]
_LAST = -1
# Input values computed at once: some twenty-five pictures of 224 x 224 pixels.
_BATCH_VALUES = 1 << 22
# Parts of a network that follow the encoder and are costly.
_LEFT_OUT = {"skip_predictor": True}


class Pretrained(NetworkEncoder):
    """The features of a model of transformers: of its encoder, if it has other parts.

    The model's own processor makes the input. What a unit is follows from that: where the processor
    gives pictures one by one, each frame is a unit; where it stacks them, a whole clip is one. A
    sound is cut into consecutive windows, a unit each. The extractor pads the last one as it was
    made to (with silence, or with repetitions), and the padding becomes tokens like any other: an
    answer can hear the silence, and the true length is not kept. Feature maps become tokens, row
    by row. The features have the scale of the model's own output.

    Args:
        model: Identifier on the Hugging Face hub, or a directory in the layout of transformers.
        layer: Which hidden state: -1 is the model's final one, after its last norm where it has
            one; other numbers index all hidden states as transformers lists them, so that 0 is the
            embedding and -2 the input of the last layer.
        pool: Number of neighbouring tokens of a unit that are averaged to one; None keeps all.
        seconds: Length of a window of sound. None is that of the extractor, or the whole sound for
            extractors that take any length.
        precision: ``half`` computes in bfloat16 where the processor does so natively, else in
            float32; ``full`` always in float32.
        with_weights: Whether they are read; without them there are shapes alone.

    Raises:
        RecipeError: If an option has a wrong value, or the model has no encoder of media.
        FetchError: If files of the model or a library are missing, or files are damaged.
    """

    def __init__(
        self,
        model: str,
        layer: int = _LAST,
        pool: int | None = None,
        seconds: float | None = None,
        precision: Literal["half", "full"] = "half",
        *,
        with_weights: bool = True,
    ) -> None:
        # Importing transformers takes longer than a command that needs no model.
        from pathweave.model.base import native_dtype

        _check_options(pool, seconds)
        self.name = Path(model).name
        self.layer, self.pool = layer, pool
        self.dtype = native_dtype() if precision == "half" else torch.float32
        encoder = load_inner_encoder(model, self.dtype, with_weights)
        self.network, self.processor = encoder.network, encoder.processor
        self.rate: int = getattr(self.processor, "sampling_rate", 0)
        self.accepts: type = Frames if encoder.network.main_input_name in PICTURES else Waveform
        own = encoder.window if self.accepts is Waveform else None
        self.window = own if seconds is None else self._given_window(seconds, own)
        self.extractor_pads = own is not None
        if not with_weights:
            return
        self.network.to(device())
        self.width = self._width(encoder.missing)
        self._check_repeatable()
        self.fingerprint = (
            f"transformers layer={layer} pool={pool} seconds={seconds} "
            f"dtype={str(self.dtype).removeprefix('torch.')} {encoder.fingerprint()}"
        )

    def most(self, unit: Inputs) -> int:
        """Return how many units like this one are read at once."""
        return max(1, _BATCH_VALUES // max(value.numel() for value in unit.values()))

    def encode(self, inputs: Inputs) -> Float[Tensor, "units tokens width"]:
        """Return the tokens of inputs.

        Raises:
            MediaError: If they do not fit the network.
        """
        try:
            return self._tokens(inputs, {})
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            one = {name: value[:1] for name, value in inputs.items()}
            raise self._misfit(shapes(one), error) from error

    def _tokens(
        self, inputs: Inputs, tensors: Mapping[str, Tensor]
    ) -> Float[Tensor, "units tokens width"]:
        """Return the tokens of inputs, computed with ``tensors`` in place of the weights."""
        known = inspect.signature(self.network.forward).parameters
        options: dict[str, Any] = {k: v for k, v in _LEFT_OUT.items() if k in known}
        if self.layer != _LAST:
            options["output_hidden_states"] = True
        output = functional_call(self.network, dict(tensors), (), {**inputs, **options})
        return as_tokens(self._state(output), self.pool)

    def _state(self, output: Any) -> Tensor:  # noqa: ANN401
        name = "last_hidden_state" if self.layer == _LAST else "hidden_states"
        states = getattr(output, name, None)
        if states is None:
            raise RecipeError(
                f"{self.name} must give {name}, got {', '.join(output)}; choose another encoder"
            )
        if self.layer == _LAST:
            return states
        if not -len(states) <= self.layer < len(states):
            raise RecipeError(
                f"layer of {self.name} must be in [{-len(states)}, {len(states) - 1}], got "
                f"{self.layer}; -1 is the final state"
            )
        return states[self.layer]

    def units(self, medium: Frames | Waveform) -> list[Inputs]:
        """Return the network's inputs for a medium, one unit each.

        Raises:
            MediaError: If a medium is of the wrong kind or rate, or does not fit the network.
        """
        if not isinstance(medium, self.accepts):
            raise MediaError(
                f"{self.name} must be given {self.accepts.__name__}, got {type(medium).__name__}; "
                "pair it with another decoder"
            )
        values = (
            samples_at(medium, self.rate).numpy() if isinstance(medium, Waveform) else medium.pixels
        )
        try:
            stacks = (
                [processed_pictures(self.processor, values)]
                if self.accepts is Frames
                else self._hear(values)
            )
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._misfit(values.shape, error) from error
        known = inspect.signature(self.network.forward).parameters
        return [
            {name: self._cast(stack[name][i]) for name in stack if name in known}
            for stack in stacks
            for i in range(len(next(iter(stack.values()))))
        ]

    def _hear(self, samples: Float32[np.ndarray, " samples"]) -> list[Mapping[str, Tensor]]:
        length = self.window or max(1, len(samples))
        if not self.extractor_pads:
            samples = np.pad(samples, (0, -len(samples) % length))
        # One by one: some extractors treat a window otherwise depending on what is beside it.
        return [
            self.processor(
                samples[start : start + length], sampling_rate=self.rate, return_tensors="pt"
            )
            for start in range(0, max(1, len(samples)), length)
        ]

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value

    def _width(self, missing: frozenset[str]) -> int:
        """Return the width of a token, from a run on shapes alone where the network allows it."""
        inputs = default_collate(self.units(self._example())[:1])
        named = chain(self.network.named_parameters(), self.network.named_buffers())
        tensors = {name: value.detach() for name, value in named}
        try:
            return self._checked_width(moved(inputs, "meta"), moved(tensors, "meta"), missing)
        except (NotImplementedError, RuntimeError):
            # Some networks look at values to decide what to compute.
            return self._checked_width(moved(inputs, self.network.device), tensors, missing)

    def _example(self) -> Frames | Waveform:
        """Return noise: in a plain medium it would not show what a network masks at random."""
        random = np.random.default_rng(0)
        if self.accepts is Waveform:
            return Waveform(random.random(self.window or self.rate, np.float32), self.rate)
        config = self.network.config
        frames: Any = getattr(config, "num_frames", None) or getattr(config, "tubelet_size", 1)
        return Frames(random.integers(0, 256, (frames, 64, 64, 3), np.uint8))

    def _checked_width(self, inputs: Inputs, tensors: Inputs, missing: frozenset[str]) -> int:
        """Return the width, and refuse a checkpoint that lacks what the features depend on."""
        for name in missing & tensors.keys():
            tensors[name].requires_grad_()
        tokens = self._tokens(inputs, tensors)
        if tokens.requires_grad:
            tokens.sum().backward()
        needed = sorted(name for name in missing & tensors.keys() if tensors[name].grad is not None)
        if needed:
            raise FetchError(
                f"the weights of {self.name} must hold every tensor of its encoder, got none for "
                f"{', '.join(needed[:3])} ({len(needed)} missing); the file belongs to another "
                "model: download it again"
            )
        return tokens.shape[2]

    def _given_window(self, seconds: float, own: int | None) -> int:
        if self.accepts is not Waveform:
            raise RecipeError(f"seconds must be left out for {self.name}, which reads Frames")
        if own is not None and seconds * self.rate > own:
            raise RecipeError(
                f"seconds must be at most the extractor's {own / self.rate:g}, got {seconds:g}; "
                "leave it out"
            )
        return round(seconds * self.rate)

    def _check_repeatable(self) -> None:
        if not getattr(self.network.config, "mask_ratio", None):
            return
        first, second = self([self._example()] * 2)
        if not torch.equal(first, second):
            raise RecipeError(
                f"{self.name} must give the same features for the same medium, got others: it "
                "masks its input at random; choose a model for features, not for pretraining"
            )

    def _misfit(self, shape: object, error: Exception) -> MediaError:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        frames = getattr(self.network.config, "num_frames", None)
        remedy = (
            f"set the decoder's frames to {frames}" if frames else "take larger or longer media"
        )
        return MediaError(
            f"{self.name} must be given media that fit its network, got the shape {shape} "
            f"({reason[0]}); {remedy}"
        )


def _check_options(pool: int | None, seconds: float | None) -> None:
    if pool is not None and pool < 1:
        raise RecipeError(f"pool must be positive, got {pool}; leave it out to keep all tokens")
    if seconds is not None and seconds <= 0:
        raise RecipeError(f"seconds must be positive, got {seconds}; leave it out for the model's")
