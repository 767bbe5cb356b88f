"""InstructBLIP (arXiv 2305.06500) and BLIP-2 (arXiv 2301.12597) of transformers as bases.

Their sequence is: the medium's tokens, the beginning-of-sequence token, the text. Their path for
pictures comes with them: its queries, and the last norm of the vision model as its input norm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from pathweave.bases.llm import (
    fit_projector,
    load_llm,
    load_llm_directory,
    load_tokenizer,
    read_config,
    starts_with_bos,
)
from pathweave.bases.qformer_names import our_state
from pathweave.bases.shards import Shards
from pathweave.errors import FetchError, RecipeError
from pathweave.model.base import Base, ReadyPath, freeze
from pathweave.model.paths import PathSpec
from pathweave.model.prompt import Template
from pathweave.nn import Projector, QFormer, QFormerConfig

INSTRUCTBLIP, BLIP2 = "instructblip", "blip-2"
QFORMER_TOKENIZER = "qformer_tokenizer"
PICTURE_PATH = "image"
NORM = "vision_model.post_layernorm"
LLM, QFORMER, PROJECTION = "language_model.", "qformer.", "language_projection."


def load_pretrained(
    directory: Path,
    llm_directory: Path | None = None,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
    layers: bool = True,
) -> Base:
    """Return the base in a directory as transformers saves it; weights are mapped, not copied.

    The Q-Former and the projector are held in float32. The vision model is not read: it is the
    encoder ``eva-clip-g`` of the base's ready path.

    Args:
        directory: Holds ``config.json``, weights, a tokenizer and, for InstructBLIP,
            ``qformer_tokenizer/``.
        llm_directory: Holds a language model to take instead of the checkpoint's own.
        dtype: Type of the language model's weights; see ``load_llm``.
        quantise: See ``load_llm``.
        layers: See ``load_llm``.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If a file is missing, damaged or partly downloaded.
        PathWeaveError: If ``quantise`` is asked for and bitsandbytes is not installed.
    """
    config, shards, tokenizer, text_tokenizer = open_pretrained(directory, llm_directory)
    if llm_directory is None:
        tensors = shards.under(LLM)
        llm = load_llm(config.text_config, tensors, directory, dtype, quantise, layers)
    else:
        llm = load_llm_directory(llm_directory, dtype, quantise, layers)
    with torch.device("meta"):
        qformer = QFormer(qformer_shape(config))
        projector = Projector(config.qformer_config.hidden_size, config.text_config.hidden_size)
    _assign(qformer, our_state(shards.under(QFORMER)), "Q-Former", directory)
    state = {f"linear.host.{name}": tensor for name, tensor in shards.under(PROJECTION).items()}
    _assign(projector, state, "projection", directory)
    found = shards.read(["query_tokens", f"{NORM}.weight", f"{NORM}.bias"])
    queries, weight, bias = (tensor.float() for tensor in found.values())
    ready = ReadyPath(
        spec=ready_spec(config),
        state={"queries": queries[0], "input_norm.weight": weight, "input_norm.bias": bias},
        decoder={"kind": "picture"},
        encoder={"kind": "eva-clip-g", "directory": str(directory)},
    )
    base = Base(
        kind=config.model_type,
        llm=llm.model,
        tokenizer=tokenizer,
        qformer=qformer,
        projector=projector,
        text_tokenizer=text_tokenizer,
        template=Template(bos=starts_with_bos(tokenizer), separate=True),
        ready_paths=(ready,),
        llm_identity=llm.identity,
    )
    fit_projector(base)
    return base


class Opened(NamedTuple):
    """What the directory of a base holds; tensors are not read yet."""

    config: PretrainedConfig
    shards: Shards
    tokenizer: PreTrainedTokenizerBase
    text_tokenizer: PreTrainedTokenizerBase | None


def open_pretrained(directory: Path, llm_directory: Path | None = None) -> Opened:
    """Find everything that ``load_pretrained`` reads, and read all but the weights.

    Raises:
        RecipeError: If it is another kind of model.
        FetchError: If a file is missing.
    """
    config = read_config(directory)
    check_config(config, directory)
    shards = Shards(directory)
    tokenizer = load_tokenizer(llm_directory or directory)
    reads_text = config.model_type == INSTRUCTBLIP
    text = load_tokenizer(directory / QFORMER_TOKENIZER) if reads_text else None
    return Opened(config, shards, tokenizer, text)


def check_config(config: PretrainedConfig, directory: Path) -> None:
    """Refuse a model that cannot be a base.

    Raises:
        RecipeError: If it is no InstructBLIP or BLIP-2, or has another kind of Q-Former.
    """
    if config.model_type not in (INSTRUCTBLIP, BLIP2):
        raise RecipeError(
            f"{directory} must hold an InstructBLIP or a BLIP-2, which have a vision model, a "
            f"Q-Former, a projection and a language model, got {config.model_type!r}; name one of "
            "these as base, and any causal language model as llm beside it"
        )
    if config.qformer_config.hidden_act != "gelu":
        raise RecipeError(
            f"the Q-Former of {directory} must use gelu, got {config.qformer_config.hidden_act!r}; "
            "choose another checkpoint"
        )


def qformer_shape(config: PretrainedConfig) -> QFormerConfig:
    """Return the sizes of the Q-Former that a configuration describes."""
    theirs = config.qformer_config
    return QFormerConfig(
        dim=theirs.hidden_size,
        num_layers=theirs.num_hidden_layers,
        num_heads=theirs.num_attention_heads,
        hidden_dim=theirs.intermediate_size,
        encoder_width=theirs.encoder_hidden_size,
        cross_attention_every=theirs.cross_attention_frequency,
        vocab_size=theirs.vocab_size if config.model_type == INSTRUCTBLIP else None,
        max_positions=theirs.max_position_embeddings,
        dropout=theirs.hidden_dropout_prob,
        layer_norm_eps=theirs.layer_norm_eps,
    )


def ready_spec(config: PretrainedConfig) -> PathSpec:
    """Return what the path for pictures is made of that comes with a model."""
    return PathSpec(
        name=PICTURE_PATH,
        encoder_width=config.vision_config.hidden_size,
        num_queries=config.num_query_tokens,
        rank=0,
        norm_eps=config.vision_config.layer_norm_eps,
    )


def _assign(module: nn.Module, state: Mapping[str, Tensor], part: str, directory: Path) -> None:
    """Give a module without memory its tensors, in float32, and freeze it."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        found = list(state[name].shape) if name in state else "none"
        if found != list(tensor.shape):
            raise FetchError(
                f"{directory} must hold the {part}'s {name} of shape {list(tensor.shape)}, "
                f"got {found}; config.json and weights are of different models, or partly "
                "downloaded: download both again"
            )
    module.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
    freeze(module)
