"""Causal language models of transformers, from mapped tensors: nothing is held twice."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pathweave.bases.shards import Shards
from pathweave.errors import FetchError, RecipeError
from pathweave.extras import import_extra
from pathweave.model.base import (
    Base,
    ends_of,
    freeze,
    keep_words,
    native_dtype,
    sampled_hash,
    with_contiguous_head,
)
from pathweave.model.chat_reader import Reader, chat_template, end_of_answer
from pathweave.model.prompt import Template
from pathweave.nn import Projector
from pathweave.storage.atomic import read_json

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# Tokens a little louder than embeddings; carried over from a prototype, not measured again.
SCALE_OVER_EMBEDDINGS = 1.5
SAMPLED_ROWS = 4096


def read_config(directory: Path) -> PretrainedConfig:
    """Return the configuration of a model.

    Raises:
        FetchError: If there is none, or transformers does not know the kind of model.
    """
    rule = f"{directory} must hold the {CONFIG} of a model of transformers"
    remedy = "download it again, or install a newer version of transformers"
    read_json(directory / CONFIG, rule, remedy, FetchError)
    try:
        return AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FetchError(f"{rule}, got {reason}; {remedy}") from error


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a directory.

    Raises:
        FetchError: If it is missing or damaged.
    """
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        raise FetchError(
            f"{directory} must hold a tokenizer ({', '.join(TOKENIZER_FILES)}), got none; place "
            "the files of the tokenizer there"
        )
    try:
        return AutoTokenizer.from_pretrained(directory)
    # A damaged tokenizer makes the reader fail in many ways.
    except Exception as error:
        raise FetchError(
            f"{directory} must hold a whole tokenizer, got one that cannot be read "
            f"({' '.join(str(error).split())[:120]}); download its files again"
        ) from error


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer puts its beginning-of-sequence token before a text."""
    ids = tokenizer.encode("a")
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def check_causal(config: PretrainedConfig, source: str | Path) -> None:
    """Refuse a language model that is no decoder; ``source`` is where it is from, for messages.

    Raises:
        RecipeError: If it is another kind of model.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        raise RecipeError(
            f"the language model of {source} must be causal (decoder only), got "
            f"{config.model_type!r}; choose a checkpoint with Vicuna, Llama or OPT inside, or name "
            "a causal one as llm"
        )


class Llm(NamedTuple):
    """A language model, and the hash that stands for its weights where they are quantised."""

    model: PreTrainedModel
    identity: str | None


def load_llm(
    config: PretrainedConfig,
    tensors: Mapping[str, Tensor],
    source: Path,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
    layers: bool = True,
) -> Llm:
    """Return a frozen language model whose weights are ``tensors``.

    A weight that has the wanted type already stays where it is: mapped from its file. Others are
    converted one by one.

    Args:
        config: Its configuration.
        tensors: Its weights by name.
        source: Where they are from, for messages.
        dtype: Type of the weights; None takes what the processor multiplies natively, unless that
            is wider than what is stored.
        quantise: ``8bit`` or ``4bit`` to hold the weights of linear layers in so many bits.
        layers: Whether it is to answer; otherwise its layers stay as stored (``keep_words``).

    Raises:
        RecipeError: If it is no model that can take the projector's tokens.
        FetchError: If a weight is missing or of another shape.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    check_causal(config, source)
    if getattr(config.get_text_config(), "hidden_size_per_layer_input", 0):
        raise RecipeError(
            f"the language model of {source} must read its input from embeddings alone, got "
            f"{config.model_type!r}, whose layers look up the words too; name another one as llm"
        )
    kind = cast(Any, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    return load_frozen(kind, config, tensors, source, dtype, quantise, layers)


def load_frozen(
    kind: type[PreTrainedModel],
    config: PretrainedConfig,
    tensors: Mapping[str, Tensor],
    source: Path,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
    layers: bool = True,
) -> Llm:
    """Return a frozen model of a kind that transformers has; see ``load_llm``.

    Raises:
        RecipeError: If it has no head that gives words.
        FetchError: If a weight is missing or of another shape.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    stored = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    chosen = dtype or min(native_dtype(), stored, key=lambda kind: kind.itemsize)
    llm: PreTrainedModel
    try:
        llm, report = cast(Any, kind).from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=chosen if layers else stored,
            output_loading_info=True,
            **_quantisation(quantise if layers else None, chosen),
        )
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        raise FetchError(
            f"{source} must hold weights of the shapes that its {CONFIG} says, got others; "
            "download both again"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise FetchError(
            f"{source} must hold every weight of its language model, got no {missing[0]} "
            f"({len(missing)} are missing); download the weights again"
        )
    settings = llm.generation_config
    if settings is not None and settings.pad_token_id is None:
        ends = settings.eos_token_id
        settings.pad_token_id = ends[0] if isinstance(ends, list) else ends
    if llm.get_output_embeddings() is None:
        raise RecipeError(
            f"{source} must hold a language model whose head transformers can tell from the rest, "
            f"got {config.model_type!r}; choose another model"
        )
    freeze(with_contiguous_head(llm))
    if not layers:
        keep_words(llm, chosen)
    return Llm(llm, sampled_hash(tensors, seed=quantise) if quantise else None)


def _quantisation(quantise: str | None, dtype: torch.dtype) -> dict[str, Any]:
    if quantise is None:
        return {}
    import_extra("bitsandbytes", "quant")
    # It would say at every layer and call that it casts to float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantise == "8bit"
        else BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def load_llm_directory(
    directory: Path,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
    layers: bool = True,
) -> Llm:
    """Return the causal language model in a directory; see ``load_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If it is incomplete.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    config = read_config(directory)
    shards = Shards(directory)
    llm = load_llm(config, shards.read(shards.names), directory, dtype, quantise, layers)
    read_generation(directory, llm.model)
    return llm


def read_generation(directory: Path, model: PreTrainedModel) -> None:
    """Give a model the tokens that end and pad an answer, as its directory says.

    Raises:
        FetchError: If the file of settings is damaged.
    """
    file = directory / GENERATION
    stored = {}
    if file.is_file():
        rule = f"{file} must hold settings of generation"
        stored = read_json(file, rule, "download it again", FetchError)
    # Of the settings of generation only these: sampling is not for us.
    for name in ("eos_token_id", "pad_token_id"):
        if stored.get(name) is not None:
            setattr(model.generation_config, name, stored[name])


def use_llm(
    base: Base,
    directory: Path,
    quantise: str | None = None,
    dtype: torch.dtype | None = None,
    layers: bool = True,
) -> None:
    """Put another language model into a base, with a fresh projector if its width differs.

    Args:
        base: The base.
        directory: Holds the language model and its tokenizer.
        quantise: See ``load_llm``.
        dtype: See ``load_llm``.
        layers: See ``load_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If it is incomplete.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    base.tokenizer = load_tokenizer(directory)
    base.llm, base.llm_identity = load_llm_directory(directory, dtype, quantise, layers)
    base.template = replace(base.template, bos=starts_with_bos(base.tokenizer))
    if base.tokenizer.chat_template:
        base.reader, base.template = base.tokenizer, chat_words(base.tokenizer)
        base.answer_end = end_of_answer(base.tokenizer, ends_of(base.llm))
    fit_projector(base)


def chat_words(reader: Reader) -> Template:
    """Return the words of a base that lays conversations out by a chat template."""
    return Template(chat=hashlib.sha256(chat_template(reader).encode()).hexdigest())


@torch.no_grad()
def soft_token_scale(llm: PreTrainedModel, every: int = 1) -> float:
    """Return the deviation that a fresh projector's tokens need: a little above that of text.

    It is measured on what the embedding module gives: some language models (Gemma) multiply the
    rows of their table.

    Args:
        llm: The language model.
        every: Step between the tokens that are measured.
    """
    embed = cast(nn.Embedding, llm.get_input_embeddings())
    ids = torch.arange(0, embed.num_embeddings, every, device=embed.weight.device)
    return SCALE_OVER_EMBEDDINGS * embed(ids).float().std().item()


def fit_projector(base: Base) -> None:
    """Replace the projector by a random one if it does not fit the language model's width."""
    embed = cast(nn.Embedding, base.llm.get_input_embeddings())
    if base.projector.linear.host.out_features == embed.embedding_dim:
        return
    scale = soft_token_scale(base.llm, every=max(1, embed.num_embeddings // SAMPLED_ROWS))
    base.projector = Projector(base.qformer.shape.dim, embed.embedding_dim, scale)
    freeze(base.projector)
    base.fresh_projector = True
