"""SmolLM2: the GGUF file becomes a plain bfloat16 directory for transformers.

transformers can read GGUF itself, but that takes 20 s and more, and it marks the model as quantised
so that it cannot be saved. So the file is read here, to the same numbers.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pathweave.bases.convert.tensors import write_model
from pathweave.extras import import_extra

if TYPE_CHECKING:
    from gguf import GGUFReader

_MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
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
    reader = import_extra("gguf", "mini").GGUFReader(source / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    write_model(out / "model.safetensors", _tensors(reader, fields))
    _write(out / "config.json", _config(fields))
    tokens = {part: fields[f"tokenizer.ggml.{part}_token_id"] for part in ("bos", "eos", "padding")}
    generation = {
        "bos_token_id": tokens["bos"],
        "eos_token_id": tokens["eos"],
        "pad_token_id": tokens["padding"],
    }
    _write(out / "generation_config.json", generation)
    _write(out / "tokenizer.json", _tokenizer(fields))
    _write(out / "tokenizer_config.json", _tokenizer_config(fields))


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tensors(reader: "GGUFReader", fields: dict[str, Any]) -> dict[str, Tensor]:
    dequantize = import_extra("gguf.quants", "mini").dequantize
    num_heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    tensors = {}
    for entry in reader.tensors:
        parts = entry.name.removesuffix(".weight").split(".")
        module = _MODULES[parts[-1]]
        if parts[0] == "blk":
            module = f"model.layers.{parts[1]}.{module}"
        values = dequantize(entry.data, entry.tensor_type).astype(np.float32, copy=False)
        if heads := num_heads.get(parts[-1]):
            values = _rotary_halves(values, heads)
        tensors[f"{module}.weight"] = torch.tensor(values, dtype=torch.bfloat16)
    return tensors


def _rotary_halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Reorder the rows of a head for rotary embedding.

    GGUF keeps the two coordinates that are rotated together side by side; transformers keeps
    all first coordinates, then all second ones.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads,
        "max_position_embeddings": fields["llama.context_length"],
        # Stored in float32 in the GGUF; 9.99999974e-06 there means 1e-05.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": fields["llama.rope.freq_base"],
        },
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer(fields: dict[str, Any]) -> dict[str, Any]:
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    control = 3
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == control
        ],
        "normalizer": None,
        # The GGUF names this splitting "smollm": single digits, then the rule of GPT-2.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return {
        # The named GPT-2 class would rebuild the splitting and lose the digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        **{
            f"{name}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
            for name, key in names.items()
        },
        "chat_template": fields["tokenizer.chat_template"],
    }
