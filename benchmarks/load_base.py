"""Time and memory of loading an InstructBLIP from safetensors.

    python -m benchmarks.load_base [--gigabytes 2] [--small] [--out DIR]

Writes a checkpoint of random weights with the shapes of InstructBLIP-Vicuna-7B in bfloat16 (the
vision model, which a base does not read, is left out), with as many layers of the language model as
the size allows; 14 GB are all 32. Drops it from the system's cache, loads it, and computes once
with it twice, so that every weight is touched. Anonymous memory is what cannot be dropped: a copy
of the weights would show there. The Q-Former is held in float32 and is therefore copied. TMPDIR is
where the checkpoint is written; all is measured once.
"""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from benchmarks.report import Figure, Report, options
from pathweave.bases.pretrained import QFORMER_TOKENIZER, load_pretrained
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium

LAYER_BYTES, OTHER_BYTES = 405e6, 930e6
LLM = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32001,
}
SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}


def write(directory: Path, num_layers: int, is_small: bool) -> None:
    """Write the checkpoint shard by shard: one layer of the language model is in memory."""
    sizes = SMALL if is_small else {}
    config = InstructBlipConfig(
        text_config={**LLM, **sizes, "num_hidden_layers": num_layers},
        qformer_config=sizes,
        image_token_index=32000,
    )
    with torch.device("meta"):
        model = InstructBlipForConditionalGeneration(config)
    config.save_pretrained(directory)
    # Real values: pages of zeros would cost nothing.
    values = torch.randn(1 << 16).mul(0.02).bfloat16()
    weight_map = {}
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("vision_model.e")}
    for number, (_, names) in enumerate(groupby(state, lambda n: n.split(".")[:4])):
        file = f"model-{number:05}.safetensors"
        shard = {}
        for name in names:
            count = state[name].numel()
            repeats = -(-count // len(values))
            shard[name] = values.repeat(repeats)[:count].view(state[name].shape)
            weight_map[name] = file
        save_file(shard, directory / file, {"format": "pt"})
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    letters = Tokenizer(models.BPE(vocab, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="!", eos_token="!")
    tokenizer.save_pretrained(directory)
    tokenizer.save_pretrained(directory / QFORMER_TOKENIZER)


def drop_from_cache(file: Path) -> None:
    """Write a file to disk and let the system forget its pages."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory() -> dict[str, float]:
    """Return resident and anonymous memory of this process, in GB."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) / 1e6 * 1.024 for line in lines}
    return {"resident": fields["Rss"], "anonymous": fields["Anonymous"]}


def grown(what: str, began: float, before: dict[str, float]) -> list[Figure]:
    """Return the time since ``began`` and the growth of memory."""
    seconds, now = time.perf_counter() - began, memory()
    growth = [
        Figure(f"{what}, growth of {kind} memory", now[kind] - held, "GB")
        for kind, held in before.items()
    ]
    return [Figure(f"{what}, time", seconds, "s"), *growth]


def main(words: Sequence[str] | None = None) -> None:
    """Write, load, compute twice, and report what it took."""
    parser = options(__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the checkpoint")
    given = parser.parse_args(words)
    logging.disable_progress_bar()
    num_layers = max(1, round((given.gigabytes * 1e9 - OTHER_BYTES) / LAYER_BYTES))
    report = Report("load_base", "What does loading a base take?", {"layers": num_layers})
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write(directory, num_layers, given.small)
        files = sorted(directory.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files) / 1e9
        report.settings["checkpoint"] = f"{size:.2f} GB in {len(files)} files"
        for file in files:
            drop_from_cache(file)
        before, began = memory(), time.perf_counter()
        base = load_pretrained(directory, dtype=torch.bfloat16)
        report.figures += grown("load", began, before)
        model = PathWeave(base).eval()
        for what in ("first touch", "second touch"):
            began = time.perf_counter()
            with torch.no_grad():
                model([[Medium("image", torch.zeros(1, 257, 1408)), "What is it?"]], ["a dog"])
            report.figures += grown(what, began, before)
    report.finish(given.out)


if __name__ == "__main__":
    main()
