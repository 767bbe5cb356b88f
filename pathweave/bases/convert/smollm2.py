"""SmolLM2: the GGUF file becomes a plain bfloat16 directory for transformers."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from pathweave.bases.convert.gguf_files import MODULES, GgufFile

_MODULES = {**MODULES, "ffn_norm": "post_attention_layernorm"}
_MAX_LENGTH = 8192


def convert_smollm2(source: Path, out: Path) -> None:
    """Convert ``source/model.gguf`` to a directory for transformers, or copy such a directory.

    Raises:
        PathWeaveError: If the library that reads GGUF is not installed.
    """
    if not (source / "model.gguf").exists():
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, out / path.name)
        return
    file = GgufFile(source / "model.gguf")
    num_heads = {
        "attn_q": file.fields["llama.attention.head_count"],
        "attn_k": file.fields["llama.attention.head_count_kv"],
    }

    def change(name: str, values: np.ndarray) -> np.ndarray:
        return _rotary_halves(values, num_heads[name]) if name in num_heads else values

    tensors = file.tensors(_MODULES, change)
    file.write(out, tensors, _config(file), _tokenizer(file), _MAX_LENGTH)


def _rotary_halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Reorder the rows of a head for rotary embedding.

    GGUF keeps the two coordinates that are rotated together side by side; transformers keeps
    all first coordinates, then all second ones.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(file: GgufFile) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": file.fields["llama.rope.freq_base"]}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **file.sizes(),
        "rope_parameters": rope,
    }


def _tokenizer(file: GgufFile) -> Tokenizer:
    merges = [tuple(merge.split(" ")) for merge in file.fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(file.tokens)}, merges))
    # The GGUF names this splitting "smollm": single digits, then the rule of GPT-2.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    file.add_special(tokenizer)
    return tokenizer
