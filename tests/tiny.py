"""Small deterministic stand-ins of the real classes: a random Llama, a byte tokenizer."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pathweave.data.manifest import write_manifest
from pathweave.model.base import Base, freeze, save_base
from pathweave.model.paths import ModalPath, PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Template
from pathweave.nn import Projector, QFormer, QFormerConfig
from pathweave.storage.atomic import write_json

WIDTH = 12
LLM_DIM = 32
# Language models that scale their embeddings, or scale or cap their logits, beside plain ones.
FAMILIES = {
    "llama": {"llm": "llama"},
    "gemma": {"llm": "gemma", "head_dim": 8},
    "gemma2": {"llm": "gemma2", "head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 8},
    "gemma3": {
        "llm": "gemma3_text",
        "head_dim": 8,
        "final_logit_softcapping": 2.0,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "cohere": {"llm": "cohere", "logit_scale": 0.25},
    "cohere2": {"llm": "cohere2", "logit_scale": 0.25, "sliding_window": 8},
    "mistral": {"llm": "mistral", "sliding_window": 8},
    "lfm2": {"llm": "lfm2", "layer_types": ["conv", "full_attention"]},
    "granite": {"llm": "granite", "logits_scaling": 4.0, "embedding_multiplier": 3.0},
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte, and one that ends a sequence."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<end>": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", bos_token="<end>"
    )


def tiny_llm(
    tokenizer: PreTrainedTokenizerFast, kind: str = "llama", **settings
) -> PreTrainedModel:
    """A random language model of one of the kinds of transformers, frozen."""
    config = AutoConfig.for_model(
        kind,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,  # with the usual 0.02 the input would hardly change the output
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": LLM_DIM,
            "intermediate_size": 64,
            "num_key_value_heads": 2,
            **settings,
        },
    )
    llm = AutoModelForCausalLM.from_config(config)
    freeze(llm)
    return llm


def tiny_base(
    seed: int = 0, text: bool = True, llm: str = "llama", max_positions: int = 64, **settings
) -> Base:
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    model = tiny_llm(tokenizer, llm, **settings)
    shape = QFormerConfig(
        dim=16,
        num_layers=3,
        num_heads=2,
        hidden_dim=32,
        encoder_width=WIDTH,
        vocab_size=len(tokenizer) if text else None,
        max_positions=max_positions,
    )
    qformer, projector = QFormer(shape), Projector(shape.dim, LLM_DIM, scale=1.0)
    freeze(qformer)
    freeze(projector)
    return Base(
        kind="tiny",
        llm=model,
        tokenizer=tokenizer,
        qformer=qformer,
        projector=projector,
        text_tokenizer=byte_tokenizer() if text else None,
        template=Template(after=" Answer:"),
        licences={"tiny": "Apache-2.0"},
    )


def tiny_model(*specs: PathSpec, seed: int = 0, text: bool = True, **llm) -> PathWeave:
    """A model whose paths have random weights everywhere: nothing is a zero map by accident."""
    model = PathWeave(tiny_base(seed, text, **llm), {spec.name: f"{spec.name}:" for spec in specs})
    for spec in specs:
        randomise(model.paths.expand(spec))
    return model.eval()


def randomise(path: ModalPath, std: float = 0.3) -> ModalPath:
    randomise_module(path, std)
    path.requires_grad_(False)
    return path


def randomise_module(module: torch.nn.Module, std: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)


def chain(*names: str, **fields) -> list[PathSpec]:
    """Specs of paths that each build on all earlier ones; the first has no adapters."""
    return [
        PathSpec(
            name,
            encoder_width=fields.get("encoder_width", WIDTH),
            num_queries=3,
            predecessors=names[1:i],
            **{"rank": 0 if i == 0 else 4, **fields},
        )
        for i, name in enumerate(names)
    ]


def medium(path: str, units: int = 1, tokens: int = 5, width: int = WIDTH, seed: int = 0) -> Medium:
    generator = torch.Generator().manual_seed(seed)
    return Medium(path, torch.randn(units, tokens, width, generator=generator))


def write_tiny_base(directory: Path) -> Path:
    save_base(tiny_base(), directory, whole=True)
    return directory


def write_sensor_data(directory: Path, name: str, count: int = 24, width: int = WIDTH) -> None:
    """Precomputed features of an invented sensor: two classes of opposite sign."""
    random = np.random.default_rng(len(name))
    # The mean over a token's numbers is zero: a layer norm must not take the class away.
    pattern = np.where(np.arange(width) % 2, 3.0, -3.0)
    for split in ("train", "test"):
        rows = []
        for i in range(count):
            label = ("low", "high")[i % 2]
            values = random.normal(size=(4, width)) + pattern * (1 if label == "high" else -1)
            file = directory / f"{name}-{split}-{i}.npy"
            np.save(file, values.astype(np.float32))
            question = [{"type": name, "path": file.name}, {"type": "text", "text": "How is it?"}]
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": label},
            ]
            rows.append({"id": f"{name}-{split}-{i}", "messages": messages, "licence": "CC0-1.0"})
        write_manifest(directory / f"{name}-{split}.jsonl", rows)


def write_tiny_recipe(directory: Path, *names: str, **changes) -> Path:
    """A recipe over invented sensors, its data and its base; the first stage trains the base."""
    directory.mkdir(parents=True, exist_ok=True)
    write_tiny_base(directory / "base")
    for name in names:
        write_sensor_data(directory, name)
    modalities = {
        name: {
            "decoder": {"kind": "array"},
            "encoder": {"kind": "precomputed", "width": WIDTH},
            "cue": f"{name}:",
            "train": {"qa": {"manifest": f"{name}-train.jsonl"}},
            "test": {"qa": {"manifest": f"{name}-test.jsonl", "metric": "exact_match"}},
        }
        for name in names
    }
    modalities[names[0]]["training"] = {"connector": True}
    recipe = {
        "name": "tiny",
        "base": "base",
        "modalities": modalities,
        "curriculum": list(names),
        "method": {"queries": 2, "rank": 2},
        "training": {"steps": 6, "batch_size": 4, "lr": 1e-2, "warmup": 1, "save_every": 2},
        "evaluation": {"batch_size": 8},
        "quick": {"training.steps": 2},
        **changes,
    }
    write_json(directory / "recipe.yaml", recipe)
    return directory / "recipe.yaml"
