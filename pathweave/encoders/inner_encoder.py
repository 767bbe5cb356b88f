"""The encoder inside any model of transformers, and the processor that makes its input.

No class of model is named here. What a network reads is its ``main_input_name``; the encoder of a
model is its outermost network that reads media and needs nothing else. For a plain encoder that
is the model itself, for a pair with a text encoder or a language model one of its parts, for a
model that transcribes its encoder without the decoder.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from pathweave.bases import hub
from pathweave.bases.shards import Shards
from pathweave.bases.wheel import UnavailableError
from pathweave.errors import FetchError, RecipeError
from pathweave.storage.atomic import sha256_bytes
from pathweave.storage.tensors import tensors_hash

# Inputs that are media, and the loaders of processors that make them, in order of preference.
PICTURES = {
    "pixel_values": ("AutoImageProcessor", "AutoVideoProcessor"),
    "pixel_values_videos": ("AutoVideoProcessor",),
}
SOUNDS = {"input_features": ("AutoFeatureExtractor",), "input_values": ("AutoFeatureExtractor",)}
_SAMPLED_VALUES = 4096
_DIGITS = 16
# Settings that say how a file was written, or (the last) follow from others and are large.
_NOT_CONTENT = {"_name_or_path", "architectures", "dtype", "transformers_version", "mel_filters"}
CONFIG = "config.json"
_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_FILES = "config.json, model.safetensors and preprocessor_config.json"


@dataclass(frozen=True)
class InnerEncoder:
    """A frozen encoder.

    Args:
        network: The encoder, a ``PreTrainedModel``.
        processor: Makes its input from media.
        missing: Parameters that the checkpoint did not hold; they have random values.
    """

    network: Any
    processor: Any
    missing: frozenset[str]

    @property
    def window(self) -> int | None:
        """Samples that an extractor fills up to and cuts at; None if it takes any length."""
        extractor = self.processor
        own = getattr(extractor, "n_samples", None) or getattr(extractor, "nb_max_samples", None)
        if own is None and (frames := getattr(extractor, "max_length", None)):
            own = frames * extractor.sampling_rate // 100  # filter banks have a frame per 10 ms
        return own

    def fingerprint(self) -> str:
        """Return hashes of content, wherever the files are: of weights and settings.

        Of each tensor, evenly spaced values count: enough to tell two checkpoints apart.
        """
        sampled = {
            name: torch.cat([_spaced(value.float()), torch.tensor([*value.shape]).float()])
            for name, value in self.network.state_dict().items()
            if name not in self.missing
        }
        settings = [
            {name: value for name, value in part.to_dict().items() if name not in _NOT_CONTENT}
            for part in (self.network.config, self.processor)
        ]
        described = sha256_bytes(json.dumps(settings, sort_keys=True, default=str).encode())
        return f"weights={tensors_hash(sampled)[:_DIGITS]} settings={described[:_DIGITS]}"


def load_inner_encoder(model: str, dtype: torch.dtype, with_weights: bool) -> InnerEncoder:
    """Return the encoder of a model of transformers, without the rest of the model.

    A model with other parts is read whole, then all but its encoder is dropped.

    Args:
        model: Identifier on the Hugging Face hub, or a directory.
        dtype: Type of the weights.
        with_weights: Whether they are read; without them the network is of shapes alone.

    Raises:
        RecipeError: If the model has no encoder of media, or several.
        FetchError: If files are missing or damaged, or a library is.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    # Tensors of other parts are reported at length; what matters is checked here.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        directory = _directory(model)
        config = read_part("AutoConfig", directory)
        whole = skeleton(config, model)
        place = find_encoder(whole, model)
        processor = load_processor(directory, whole.get_submodule(place).main_input_name)
        missing: list[str] = []
        if with_weights:
            whole, about = read_part(
                "AutoModel", directory, config=config, dtype=dtype, output_loading_info=True
            )
            missing = about["missing_keys"]
        else:
            whole.to(dtype)
    finally:
        logging.set_verbosity(before)
    network = whole.get_submodule(place)
    network.eval().requires_grad_(False)
    prefix = f"{place}." if place else ""
    own = (key.removeprefix(prefix) for key in missing if key.startswith(prefix))
    return InnerEncoder(network, processor, frozenset(own))


def check_model(directory: Path) -> None:
    """Check that a directory holds the configuration, weights and processor of a model.

    Raises:
        FetchError: If something is missing.
    """
    read_part("AutoConfig", directory)
    Shards(directory)
    if not any((directory / file).is_file() for file in _PROCESSORS):
        raise FetchError(
            f"{directory} must hold the settings of a processor ({' or '.join(_PROCESSORS)}), got "
            "none; download the model's small files too"
        )


def skeleton(config: Any, model: str) -> Any:  # noqa: ANN401
    """Return a model of transformers on the meta device.

    Args:
        config: Configuration of the model.
        model: Its name, for messages.

    Raises:
        FetchError: If transformers cannot build such a model here.
    """
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            return AutoModel.from_config(config, trust_remote_code=False)
    # Models are built by code of every kind.
    except Exception as error:
        raise FetchError(
            f"{model} must be a model that transformers can build here, got {_first_line(error)}; "
            "install what is missing, or choose another model"
        ) from error


def find_encoder(whole: Any, model: str) -> str:  # noqa: ANN401
    """Return where the encoder is in a model, which needs no weights.

    Raises:
        RecipeError: If it has no encoder of media, or several.
    """
    found: list[str] = []
    for place, module in whole.named_modules():
        is_inside = any(place.startswith(f"{outer}." if outer else "") for outer in found)
        if not is_inside and _reads_media(module):
            found.append(place)
    if len(found) != 1:
        what = f"several ({', '.join(found)})" if found else f"a {whole.config.model_type} model"
        raise RecipeError(
            f"{model} must have one encoder of pictures or sounds (a network whose main input is "
            f"{', '.join(PICTURES | SOUNDS)}), got {what}; name a model that is or holds one, such "
            "as facebook/dinov2-base or openai/whisper-base"
        )
    return found[0]


def _reads_media(module: torch.nn.Module) -> bool:
    from transformers import PreTrainedModel

    if not isinstance(module, PreTrainedModel):
        return False
    parameters = inspect.signature(module.forward).parameters
    others = (p for name, p in parameters.items() if name != module.main_input_name)
    is_composite = bool(type(module.config).sub_configs)
    has_decoder = getattr(module.config, "is_encoder_decoder", False) and hasattr(module, "decoder")
    return (
        module.main_input_name in PICTURES | SOUNDS
        and module.main_input_name in parameters
        and not is_composite
        and not has_decoder
        and all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in others)
    )


def load_processor(directory: Path, input_name: str) -> Any:  # noqa: ANN401
    """Return the processor that makes an input of media.

    Raises:
        FetchError: If its files are missing or damaged, or a library is.
    """
    reasons: list[str] = []
    for loader in (PICTURES | SOUNDS)[input_name]:
        # Pillow resizes the same way everywhere; torchvision, where installed, a little otherwise.
        options = {"backend": "pil"} if loader == "AutoImageProcessor" else {}
        try:
            return read_part(loader, directory, **options)
        except FetchError as error:
            reasons.append(_first_line(error.__cause__ or error))
    is_library = any("Torchvision" in reason for reason in reasons)
    remedy = "; or pip install torchvision in the version that fits your torch" * is_library
    raise FetchError(
        f"{directory} must have a processor for {input_name} (preprocessor_config.json and its "
        f"like), got {'; '.join(reasons)}. Download the model's small files too{remedy}"
    )


def processed_pictures(
    processor: Any,  # noqa: ANN401
    pixels: UInt8[np.ndarray, "frames height width 3"],
) -> Mapping[str, Tensor]:
    """Return the input that a processor makes of pictures: one unit each, or one of them all."""
    options = {"return_tensors": "pt", "input_data_format": "channels_last"}
    if hasattr(processor, "do_sample_frames"):
        # The decoder has chosen the frames.
        return processor(videos=[pixels], do_sample_frames=False, **options)
    return processor(images=list(pixels), **options)


def as_tokens(
    states: Float[Tensor, "units ..."], pool: int | None
) -> Float[Tensor, "units tokens width"]:
    """Return hidden states as tokens: maps row by row, and ``pool`` neighbours averaged to one."""
    tokens = states if states.ndim == 3 else states.flatten(2).transpose(1, 2)
    if pool is None:
        return tokens
    size = min(pool, tokens.shape[1])
    return F.avg_pool1d(tokens.transpose(1, 2), size, ceil_mode=True).transpose(1, 2)


def _directory(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        return hub.snapshot(model)
    except UnavailableError as error:
        raise _unreadable(model, error.__cause__ or error) from error


def read_part(loader: str, directory: Path, **options: object) -> Any:  # noqa: ANN401
    """Return what a class of transformers, such as ``AutoConfig``, reads from a directory.

    Raises:
        FetchError: If files are missing or damaged.
    """
    import transformers

    load = getattr(transformers, loader)
    try:
        return load.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, **options
        )
    # Whatever is wrong with a file, the libraries underneath raise errors of their own.
    except Exception as error:
        raise _unreadable(str(directory), error) from error


def _unreadable(model: str, reason: BaseException) -> FetchError:
    return FetchError(
        f"model must be a directory with {_FILES}, or an identifier on the Hugging Face hub that "
        f"can be reached, got {model!r} ({_first_line(reason)}); put these files into a directory "
        "and name it, or connect to the hub"
    )


def _spaced(values: Tensor) -> Tensor:
    flat = values.detach().flatten().cpu()
    return flat[:: max(1, len(flat) // _SAMPLED_VALUES)]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
