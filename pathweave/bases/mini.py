"""The small base: SmolLM2-135M-Instruct behind a Q-Former initialised from MiniLM.

It is made of pretrained parts that fit a laptop. Its Q-Former has never seen a feature, so the
first stage of a curriculum trains the whole connector: that stage stands for the pretrained vision
language model which the paper starts from.
"""

from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from pathweave.bases.fetch import weights_dir
from pathweave.bases.llm import soft_token_scale
from pathweave.bases.qformer_names import our_state
from pathweave.bases.weights_manifest import manifest
from pathweave.model.base import (
    DESCRIPTION,
    LLM_DIRECTORY,
    Base,
    freeze,
    keep_words,
    native_dtype,
    read_description,
    with_contiguous_head,
)
from pathweave.model.prompt import Template
from pathweave.nn import Projector, QFormer, QFormerConfig
from pathweave.storage.tensors import NotFilling

KIND = "mini"
LLM, TEXT = "smollm2-135m-instruct", "minilm-l6-v2"
PARTS = {"base's language model": LLM, "base's Q-Former": TEXT}
ENCODER_WIDTH = 1280
INIT_STD = 0.02


def minilm_qformer(directory: Path) -> QFormer:
    """Return a Q-Former whose self-attention, text and feed-forward weights are MiniLM's.

    Cross-attention has no counterpart there and starts random, from torch's current seed.
    """
    shape = QFormerConfig(
        dim=384,
        num_layers=6,
        num_heads=12,
        hidden_dim=1536,
        encoder_width=ENCODER_WIDTH,
        vocab_size=30522,
    )
    qformer = QFormer(shape)
    for name, parameter in qformer.named_parameters():
        if "cross_attention" in name and name.endswith("host.weight"):
            torch.nn.init.normal_(parameter, std=INIT_STD)
        elif "cross_attention" in name and name.endswith("host.bias"):
            torch.nn.init.zeros_(parameter)
    state = our_state(load_file(directory / "model.safetensors"))
    queries = {k.replace("text_ffn", "query_ffn"): v for k, v in state.items() if "text_ffn" in k}
    missing, unexpected = qformer.load_state_dict({**state, **queries}, strict=False)
    assert not unexpected, unexpected
    assert all("cross_attention" in name for name in missing), missing
    return qformer


def attention() -> str:
    """Return how the language model computes attention on this machine, as transformers names it.

    On a CPU and for prompts this short, plain attention is faster than the fused kernel.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


def load_smollm(directory: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """Return the language model, equal to what ``from_pretrained`` returns, and sooner.

    That is made for the files of any model.

    Args:
        directory: Its files, which have been checked when they were fetched.
        dtype: Type of the weights; None leaves them as they are stored, mapped from the file.
    """
    tensors = load_file(directory / "model.safetensors")
    kind = dtype or next(iter(tensors.values())).dtype
    with NotFilling():
        config = AutoConfig.from_pretrained(directory)
        llm = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation=attention())
    tensors = {name: tensor.to(kind) for name, tensor in tensors.items()}
    missing, unexpected = llm.load_state_dict(tensors, strict=False, assign=True)
    assert missing == ["lm_head.weight"], missing
    assert not unexpected, unexpected
    llm.tie_weights()
    llm.generation_config = GenerationConfig.from_pretrained(directory)
    return cast(PreTrainedModel, llm)


def is_connector(directory: Path) -> bool:
    """Return whether a directory is what a run leaves in `base/`: the small base's connector."""
    is_base = (directory / DESCRIPTION).is_file()
    if not is_base or (directory / LLM_DIRECTORY).exists():
        return False
    return bool(read_description(directory)["kind"] == KIND)


def load_mini(dtype: torch.dtype | None = None, layers: bool = True) -> Base:
    """Return the small base, fetching its weights if they are not here.

    Args:
        dtype: Type of the language model's weights; by default bfloat16 where the processor
            multiplies it natively, else float32.
        layers: Whether the language model is to answer; see ``keep_words``.

    Raises:
        FetchError: If weights are missing and cannot be fetched.
    """
    directory = weights_dir(LLM)
    dtype = dtype or native_dtype()
    llm = load_smollm(directory, dtype if layers else None)
    freeze(with_contiguous_head(llm))
    if not layers:
        keep_words(llm, dtype)
    text_directory = weights_dir(TEXT)
    qformer = minilm_qformer(text_directory)
    return Base(
        kind=KIND,
        llm=llm,
        tokenizer=AutoTokenizer.from_pretrained(directory),
        qformer=qformer,
        projector=Projector(qformer.shape.dim, llm.config.hidden_size, soft_token_scale(llm)),
        text_tokenizer=AutoTokenizer.from_pretrained(text_directory),
        template=Template(text_first=True),
        licences={name: manifest()[name].licence for name in (LLM, TEXT)},
    )
