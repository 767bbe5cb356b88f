"""GGUF files, and the directories for transformers that are made of them.

transformers can read GGUF itself, but that takes 20 s and more, and it marks the model as quantised
so that it cannot be saved. So the files are read here, to the same numbers.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from pathweave.bases.convert.tensors import write_model
from pathweave.extras import import_extra

CONTROL, USER_DEFINED = 3, 4  # kinds of tokens
MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


class GgufFile:
    """A language model in a GGUF file.

    Args:
        file: The file.

    Raises:
        PathWeaveError: If the library that reads GGUF is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._reader = import_extra("gguf", "mini").GGUFReader(file)
        self.fields = {name: field.contents() for name, field in self._reader.fields.items()}
        self.tokens: list[str] = self.fields["tokenizer.ggml.tokens"]
        self.kinds: list[int] = self.fields["tokenizer.ggml.token_type"]
        self._special = {
            name: self.fields[f"tokenizer.ggml.{key}_token_id"] for name, key in _SPECIAL.items()
        }

    def tensors(
        self, modules: Mapping[str, str], change: Callable[[str, np.ndarray], np.ndarray]
    ) -> dict[str, Tensor]:
        """Return the weights in bfloat16 under the names of transformers.

        Args:
            modules: Names of modules there, by their names here.
            change: Called with the name here and the values, which it returns as they are there.
        """
        dequantize = import_extra("gguf.quants", "mini").dequantize
        tensors = {}
        for entry in self._reader.tensors:
            parts = entry.name.removesuffix(".weight").split(".")
            module = modules[parts[-1]]
            if parts[0] == "blk":
                module = f"model.layers.{parts[1]}.{module}"
            values = dequantize(entry.data, entry.tensor_type).astype(np.float32, copy=False)
            values = change(parts[-1], values)
            tensors[f"{module}.weight"] = torch.tensor(values, dtype=torch.bfloat16)
        return tensors

    def sizes(self) -> dict[str, Any]:
        """Return what the configurations of all families name alike."""
        named = {
            "hidden_size": "embedding_length",
            "intermediate_size": "feed_forward_length",
            "num_hidden_layers": "block_count",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "max_position_embeddings": "context_length",
        }
        family = self.fields["general.architecture"]
        return {
            "dtype": "bfloat16",
            "vocab_size": len(self.tokens),
            **{name: self.fields[f"{family}.{key}"] for name, key in named.items()},
            # Stored in float32 in the GGUF; 9.99999974e-06 there means 1e-05.
            "rms_norm_eps": float(
                f"{self.fields[f'{family}.attention.layer_norm_rms_epsilon']:.6g}"
            ),
            "tie_word_embeddings": True,
        }

    def add_special(self, tokenizer: Tokenizer) -> None:
        """Tell a tokenizer which of its tokens control the model and are no text."""
        special = [t for t, kind in zip(self.tokens, self.kinds, strict=True) if kind == CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])

    def write(
        self,
        out: Path,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        tokenizer: Tokenizer,
        max_length: int,
    ) -> None:
        """Write a directory for transformers."""
        generation = {f"{name}_token_id": self._special[name] for name in ("bos", "eos", "pad")}
        template = self.fields.get("tokenizer.chat_template")
        settings: dict[str, dict[str, Any]] = {
            "config": {**config, **generation},
            "generation_config": generation,
            "tokenizer_config": {
                # A class of a family would rebuild the splitting its own way.
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": max_length,
                "clean_up_tokenization_spaces": False,
                **({} if template is None else {"chat_template": template}),
                **{f"{name}_token": self.tokens[i] for name, i in self._special.items()},
            },
        }
        write_model(out / "model.safetensors", tensors)
        for name, values in settings.items():
            text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
            (out / f"{name}.json").write_text(text, encoding="utf-8")
        (out / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
