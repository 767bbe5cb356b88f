"""MiniLM: published as safetensors already; the files are made uniform across sources."""

import json
import zipfile
from pathlib import Path

from safetensors.torch import load_file

from pathweave.bases.convert.tensors import write_model

# Given here because the sources spell these settings in three ways, of which the older ones ask
# transformers to rebuild the tokenizer and lose its normaliser.
_TOKENIZER = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def convert_minilm(source: Path, out: Path) -> None:
    """Convert a directory, or the ``model.zip`` in it, to a BERT directory for transformers."""
    archive = source / "model.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as file:
            for name in ("config.json", "model.safetensors", "tokenizer.json"):
                (source / name).write_bytes(file.read(name))
    tensors = load_file(source / "model.safetensors")
    # A buffer of old transformers versions; new ones would report it as unexpected.
    tensors.pop("embeddings.position_ids", None)
    write_model(out / "model.safetensors", tensors)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for outdated in ("_name_or_path", "transformers_version", "gradient_checkpointing"):
        config.pop(outdated, None)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    # The published tokenizer pads and truncates every text to 128 tokens unless told otherwise.
    tokenizer["padding"] = tokenizer["truncation"] = None
    (out / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(
        json.dumps(_TOKENIZER, indent=2) + "\n", encoding="utf-8"
    )
