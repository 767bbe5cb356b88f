"""Small random checkpoints in the published formats: InstructBLIP and BLIP-2 of transformers."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

SIDE, PATCH, WIDTH, QUERIES = 28, 14, 24, 4
KINDS = ("instructblip-llama", "instructblip-opt", "blip2-opt")
QUESTION = "What is it, and how many?"


def tokenizer(start: str = "", end: str = "", leading_space: bool = False):
    """One token per byte; puts ``start`` before and ``end`` after a text."""
    names = ["<pad>", "<s>", "</s>", "[CLS]", "[SEP]"]
    alphabet = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    built = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    if leading_space:  # as Llama's
        built.normalizer = normalizers.Prepend(" ")
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}".strip(), special_tokens=[(n, vocab[n]) for n in names]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def llm_settings(kind: str, vocab_size: int, width: int = 32) -> dict[str, object]:
    common = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if kind == "llama":
        own = {"intermediate_size": 48, "initializer_range": 0.2}
    else:
        own = {"ffn_dim": 48, "word_embed_proj_dim": width, "init_std": 0.2, "dropout": 0.0}
    return {"model_type": kind, **common, **own}


@dataclass
class Published:
    """A checkpoint on disk, and the model and processor of transformers that it holds."""

    directory: Path
    model: PreTrainedModel
    processor: ProcessorMixin

    def inputs(self, text: str = QUESTION):
        return self.processor(images=picture(), text=text, return_tensors="pt")

    @torch.no_grad()
    def features(self):
        """What comes out of the vision model before its last norm."""
        out = self.model.vision_model(self.inputs()["pixel_values"], output_hidden_states=True)
        return out.hidden_states[-1]


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def picture_bytes(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, "PNG")
    return stream.getvalue()


def write_llm(directory: Path, kind: str, width: int = 32, dtype=torch.float32) -> None:
    """Save a causal language model with its tokenizer."""
    torch.manual_seed(1)
    words = tokenizer("<s>", leading_space=kind == "llama")
    config = AutoConfig.for_model(**llm_settings(kind, len(words), width))
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(directory)
    words.save_pretrained(directory)


def write_published(directory: Path, kind: str, seed: int = 0, **saving) -> Published:
    """Save a random checkpoint with its tokenizers, as ``save_pretrained`` does."""
    torch.manual_seed(seed)
    family, llm = kind.split("-")
    words = tokenizer("<s>", leading_space=llm == "llama")
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    settings = {
        "vision_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        "qformer_config": {
            "vocab_size": len(words),
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
        },
        "text_config": llm_settings(llm, len(words) + 1),
        "num_query_tokens": QUERIES,
        "image_token_index": len(words),
    }
    if family == "instructblip":
        questions = tokenizer("[CLS]", "[SEP]")
        processor = InstructBlipProcessor(pictures, words, questions, num_query_tokens=QUERIES)
        model = InstructBlipForConditionalGeneration(InstructBlipConfig(**settings))
    else:
        processor = Blip2Processor(pictures, words, num_query_tokens=QUERIES)
        model = Blip2ForConditionalGeneration(Blip2Config(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("language_model"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.eval().save_pretrained(directory, **saving)
    processor.save_pretrained(directory)
    return Published(directory, model, processor)
