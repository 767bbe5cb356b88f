"""Gemma 3: the GGUF file of a text model becomes a plain bfloat16 directory for transformers."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from pathweave.bases.convert.gguf_files import MODULES, USER_DEFINED, GgufFile

_MODULES = {
    **MODULES,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
TERMS = "GEMMA_TERMS.html"
SPACE = "\u2581"  # what stands for a space in a token
# What the file leaves to its reader, as Gemma 3 was published.
LOCAL_THETA, LAYERS_PER_FULL_ATTENTION = 10_000.0, 6


def convert_gemma3(source: Path, out: Path) -> None:
    """Convert ``source/model.gguf`` to a directory for transformers, with the terms of use beside.

    Raises:
        PathWeaveError: If the library that reads GGUF is not installed.
    """
    file = GgufFile(source / "model.gguf")
    config = _config(file)

    def change(name: str, values: np.ndarray) -> np.ndarray:
        # transformers adds 1 to the weights of a norm when it is applied.
        return values - 1 if name.endswith("norm") else values

    tensors = file.tensors(_MODULES, change)
    file.write(out, tensors, config, _tokenizer(file), config["max_position_embeddings"])
    if (source / TERMS).exists():
        shutil.copyfile(source / TERMS, out / TERMS)


def _config(file: GgufFile) -> dict[str, Any]:
    head_dim = file.fields["gemma3.attention.key_length"]
    thetas = {
        "full_attention": file.fields["gemma3.rope.freq_base"],
        "sliding_attention": LOCAL_THETA,
    }
    sizes = file.sizes()
    layers = range(1, sizes["num_hidden_layers"] + 1)
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **sizes,
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": file.fields["gemma3.attention.sliding_window"],
        "layer_types": [
            "sliding_attention" if layer % LAYERS_PER_FULL_ATTENTION else "full_attention"
            for layer in layers
        ],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
    }


def _tokenizer(file: GgufFile) -> Tokenizer:
    # The file writes runs of spaces as they are: as text, and not as they are in a token.
    own = {t for t, k in zip(file.tokens, file.kinds, strict=True) if k == USER_DEFINED}
    tokens = [t.replace(" ", SPACE) if t in own else t for t in file.tokens]
    vocab = {token: index for index, token in enumerate(tokens)}
    bos, unknown = (
        file.tokens[file.fields[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "unknown")
    )
    tokenizer = Tokenizer(
        BPE(vocab, [*_merges(vocab)], byte_fallback=True, fuse_unk=True, unk_token=unknown)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, vocab[bos])],
    )
    file.add_special(tokenizer)
    whole = [token for token in tokens if token in own]  # without those of spaces
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in whole])
    return tokenizer


def _merges(vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield every pair of tokens that makes one. Tokens are numbered in the order of merging."""
    for token in vocab:
        for end in range(len(token) - 1, 0, -1):
            if token[:end] in vocab and token[end:] in vocab:
                yield token[:end], token[end:]
