"""Vision LLMs of transformers: models that read pictures and more beside text, by themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from pathweave.bases.llm import (
    SAMPLED_ROWS,
    chat_words,
    load_frozen,
    read_config,
    read_generation,
    soft_token_scale,
)
from pathweave.bases.pretrained import BLIP2, INSTRUCTBLIP
from pathweave.bases.shards import Shards
from pathweave.bases.tails import find_tail
from pathweave.errors import FetchError, RecipeError
from pathweave.extras import import_extra
from pathweave.model.base import Base, ends_of, freeze
from pathweave.model.chat_reader import end_of_answer
from pathweave.nn import Projector, QFormer, QFormerConfig

TEXT = "text"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
# What some processors need beside transformers.
EXTRA, EXTRA_PACKAGES = "vlm", ("torchvision", "num2words")
REMEDY = "choose a checkpoint that transformers lists under image-text-to-text"
# How files of the kinds of media that transformers names are decoded for a processor.
DECODERS_OF = {"image": "picture", "video": "clip"}
# What a family marks the tokens of an answer with, where that is not what it marks a prompt's with.
AFTER_PROMPT = {"paligemma": {"token_type_ids": 1}}


class VisionLlm(NamedTuple):
    """A vision LLM.

    Attributes:
        model: The frozen model.
        processor: Its processor, which holds its tokenizer.
        identity: Hash that stands for its weights where they are quantised.
        native: Kinds of media that it reads by itself, as the processor calls them.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    identity: str | None
    native: tuple[str, ...]


class LoadedModel(NamedTuple):
    """A vision LLM without its processor; see ``VisionLlm``."""

    model: PreTrainedModel
    identity: str | None
    native: tuple[str, ...]


def load_vision_base(
    directory: Path,
    reducer: QFormerConfig,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
) -> Base:
    """Return the vision LLM in a directory as a base whose paths have connectors of their own.

    Args:
        directory: See ``open_vision_llm``.
        reducer: Sizes of the Q-Former that each path starts from; its weights are random.
        dtype: See ``load_llm``.
        quantise: See ``load_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If it is incomplete or damaged.
        PathWeaveError: If the processor or ``quantise`` needs a package that is not installed.
    """
    opened = open_vision_llm(directory, dtype, quantise)
    base = base_of(opened.model, opened.processor.tokenizer, reducer)
    base.reader, base.template = opened.processor, chat_words(opened.processor)
    base.answer_end = end_of_answer(opened.processor, ends_of(opened.model))
    base.llm_identity = opened.identity
    return base


def base_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, reducer: QFormerConfig
) -> Base:
    """Return a vision LLM, which may be one of shapes, as a base that has no reader yet.

    Args:
        model: The vision LLM.
        tokenizer: Its tokenizer.
        reducer: Sizes of the Q-Former that each path starts from; its weights are random.
    """
    tail = find_tail(model)
    words = cast(nn.Embedding, model.get_input_embeddings())
    if tail is not None:  # a tower's features are normed: their deviation is about 1
        out, scale = tail.width, 1.0
    else:
        out, every = words.embedding_dim, words.num_embeddings // SAMPLED_ROWS + 1
        scale = 1.0 if words.weight.is_meta else soft_token_scale(model, every)
    qformer, projector = QFormer(reducer), Projector(reducer.dim, out, scale)
    freeze(qformer)
    freeze(projector)
    return Base(
        kind=model.config.model_type,
        llm=model,
        tokenizer=tokenizer,
        qformer=qformer,
        projector=projector,
        text_tokenizer=None,
        native=native_media(model),
        shares_connector=False,
        tail=None if tail is None else tail.module,
        after_prompt=AFTER_PROMPT.get(model.config.model_type, {}),
    )


def native_media(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the kinds of media that a vision LLM reads by itself."""
    # A tower that the configuration leaves out is None.
    return tuple(k for k in _media(model) if model.get_encoder(modality=k) is not None)


def decoders_of(native: Sequence[str]) -> dict[str, str]:
    """Return the kinds of media of a base that there is a decoder for, and the decoder's kind."""
    return {kind: of for kind, of in DECODERS_OF.items() if kind in native}


def picture_kind(native: Sequence[str]) -> str | None:
    """Return which of the kinds of media that a base reads by itself are pictures, if any are."""
    return next((kind for kind in native if DECODERS_OF.get(kind) == "picture"), None)


def is_vision_llm(config: PretrainedConfig) -> bool:
    """Return whether a model reads media beside text by itself; ``load_pretrained`` has others."""
    return _kind(config) is not None and config.model_type not in (INSTRUCTBLIP, BLIP2)


def _kind(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class of the model that a configuration is of, if it reads more than text."""
    kind = None
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        kind = cast(Any, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
    # Language models may inherit what they say they read from a model with a tower (Gemma 3's).
    elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and hasattr(config, "vision_config"):
        kind = cast(Any, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    return kind if kind is not None and _media(kind) else None


def _media(model: PreTrainedModel | type[PreTrainedModel]) -> tuple[str, ...]:
    kinds = model.input_modalities
    return tuple(kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != TEXT)


def refuse_llm(llm: str | None, base: str) -> None:
    """Refuse a language model beside a vision LLM, which is one itself.

    Raises:
        RecipeError: If one is named.
    """
    if llm is not None:
        raise RecipeError(
            f"llm must be left out where the base is a vision LLM, got {llm!r} for {base!r}; leave "
            "it out"
        )


def open_vision_llm(
    directory: Path, dtype: torch.dtype | None = None, quantise: str | None = None
) -> VisionLlm:
    """Return the vision LLM in a directory, with its processor.

    Args:
        directory: Holds configuration, weights, processor and tokenizer.
        dtype: Type of the weights; see ``load_llm``.
        quantise: See ``load_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If it is incomplete or damaged.
        PathWeaveError: If the processor or ``quantise`` needs a package that is not installed.
    """
    _known_kind(read_config(directory), directory)  # what is quick to refuse, first
    processor = load_processor(directory)
    model, identity, native = load_vision_llm(directory, dtype, quantise)
    return VisionLlm(model, processor, identity, native)


def load_vision_llm(
    directory: Path, dtype: torch.dtype | None = None, quantise: str | None = None
) -> LoadedModel:
    """Return the vision LLM in a directory without its processor; see ``open_vision_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If it is incomplete or damaged.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    config = read_config(directory)
    kind = _known_kind(config, directory)
    shards = Shards(directory)
    loaded = load_frozen(kind, config, shards.read(shards.names), directory, dtype, quantise)
    read_generation(directory, loaded.model)
    return LoadedModel(loaded.model, loaded.identity, native_media(loaded.model))


def vision_llm_of(
    config: PretrainedConfig, source: str | Path, dtype: torch.dtype
) -> PreTrainedModel:
    """Return the vision LLM that a configuration is of, with the values it is made with.

    Args:
        config: The configuration.
        source: Where it is from, for messages.
        dtype: Type of the weights.

    Raises:
        RecipeError: If it is another kind of model.
    """
    model = cast(Any, _known_kind(config, source))(config).to(dtype)
    freeze(model)
    return cast(PreTrainedModel, model)


def check_vision_llm(directory: Path) -> None:
    """Check that a directory holds a vision LLM with its processor; weights are not read.

    Raises:
        RecipeError: If it is another kind of model, or has no chat template.
        FetchError: If it is incomplete or damaged.
        PathWeaveError: If the processor needs a package that is not installed.
    """
    _known_kind(read_config(directory), directory)
    Shards(directory)
    chat_words(load_processor(directory))


def _known_kind(config: PretrainedConfig, directory: str | Path) -> type[PreTrainedModel]:
    kind = _kind(config)
    if kind is None or not is_vision_llm(config):
        raise RecipeError(f"{_rule(directory)}, got {config.model_type!r}; {REMEDY}")
    if config.is_encoder_decoder:
        raise RecipeError(
            f"{_rule(directory)} with a language model that is a decoder alone, got "
            f"{config.model_type!r}, which has an encoder; {REMEDY}"
        )
    return kind


def _rule(directory: str | Path) -> str:
    return f"the base in {directory} must be a vision LLM"


def load_processor(directory: Path) -> ProcessorMixin:
    """Return the processor in a directory.

    Raises:
        FetchError: If it is missing or damaged.
        PathWeaveError: If it needs a package that is not installed.
    """
    if not any((directory / file).is_file() for file in PROCESSOR_FILES):
        raise FetchError(
            f"{directory} must hold the processor of a vision LLM ({' or '.join(PROCESSOR_FILES)}),"
            " got none; download its files too"
        )
    rule = f"{directory} must hold a whole processor with its tokenizer"
    try:
        processor = AutoProcessor.from_pretrained(directory)
    # A damaged processor, or one of another version, makes the reader fail in many ways.
    except Exception as error:
        reason = " ".join(str(error).split())
        for package in EXTRA_PACKAGES:
            if package in reason.lower():
                import_extra(package, EXTRA)
        raise FetchError(
            f"{rule}, got one that cannot be read ({reason[:120]}); download its files again, or "
            "install a newer version of transformers"
        ) from error
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "tokenizer"):
        raise FetchError(f"{rule}, got a {type(processor).__name__} alone; download the rest")
    return processor
