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
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
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
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
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
    ids = {name: fields[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()}
    generation = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    write_model(out / "model.safetensors", _tensors(reader, fields))
    settings = {
        "config": _config(fields) | generation,
        "generation_config": generation,
        "tokenizer_config": {
            # The named GPT-2 class would rebuild the splitting and lose the digits.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": _MAX_LENGTH,
            "clean_up_tokenization_spaces": False,
            "chat_template": fields["tokenizer.chat_template"],
            **{f"{n}_token": fields["tokenizer.ggml.tokens"][i] for n, i in ids.items()},
        },
    }
    for name, values in settings.items():
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")
    (out / "tokenizer.json").write_text(_tokenizer(fields).to_str(), encoding="utf-8")


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
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        # Stored in float32 in the GGUF; 9.99999974e-06 there means 1e-05.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "tie_word_embeddings": True,
    }


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    # The GGUF names this splitting "smollm": single digits, then the rule of GPT-2.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer
