"""Tiny random vision LLMs of transformers as a user has them: weights, processor, chat template.

``FAMILIES`` maps a name to what is special about a family; ``write_vision_llm`` saves one;
``WITH_PROCESSOR`` are the parameters of tests that need a processor. Models
are a few layers of width 32 with loud weights, tokenizers have one token per byte and the
family's special tokens, processors and their classes are the family's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers.processors import TemplateProcessing

from pathweave.model.chat import Native
from tests.tiny import byte_tokenizer

WIDTH, SIDE, PATCH = 32, 32, 8
SQUARE = {"height": SIDE, "width": SIDE}
LOUD = 0.2
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"


HAS_TORCHVISION = find_spec("torchvision") is not None


@dataclass(frozen=True)
class Family:
    """What makes a tiny model of a family.

    Attributes:
        config: From the function that gives a token's id and the number of tokens, the fields.
        template: The chat template.
        processor: Makes the processor from tokenizer and template.
        named: Special tokens that the tokenizer knows by a name, such as ``image_token``.
        special: Other special tokens.
        needs: Packages that the processor needs.
        adds_bos: Whether the tokenizer puts the token that begins a sequence before every text.
    """

    config: Callable[[Callable[[str], int], int], Mapping[str, Any]]
    template: str
    processor: Callable[[Any, str], Any]
    named: Mapping[str, str]
    special: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    adds_bos: bool = False

    @property
    def has_processor(self) -> bool:
        return all(find_spec(package) for package in self.needs)


def tokenizer_of(family: Family) -> Any:
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer().backend_tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=dict(family.named),
    )
    tokenizer.add_tokens(list(family.special), special_tokens=True)
    if family.adds_bos:
        bos = [(BOS, tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=bos
        )
    return tokenizer


def random_model(name: str, tokenizer: Any) -> Any:
    """A model of a family with weights of about ``LOUD``: nothing is zero by accident."""
    size = len(tokenizer) + 3  # tables are often longer than the tokenizer
    fields = FAMILIES[name].config(tokenizer.convert_tokens_to_ids, size)
    config = hf.AutoConfig.for_model(name, **fields)
    torch.manual_seed(0)
    auto = hf.AutoModelForImageTextToText
    known = type(config) in hf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    model = (auto if known else hf.AutoModelForCausalLM).from_config(config)
    for parameter in model.parameters():
        quiet = parameter.ndim > 1 and parameter.std() < LOUD / 4
        if quiet or not parameter.any():
            torch.nn.init.normal_(parameter, std=LOUD)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model.eval().requires_grad_(False)


def write_processor(directory: Path, name: str) -> Any:
    """Save a family's processor, or its tokenizer where that cannot be made; return the latter."""
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    tokenizer.chat_template = family.template
    if family.has_processor:  # some processors add tokens to their tokenizer
        family.processor(tokenizer, family.template).save_pretrained(directory)
    else:
        tokenizer.save_pretrained(directory)
    return tokenizer


def write_vision_llm(directory: Path, name: str) -> Path:
    """Save a tiny vision LLM with tokenizer, template and, where it can be made, processor."""
    random_model(name, write_processor(directory, name)).save_pretrained(directory)
    return directory


def picture(width: int = SIDE, height: int = SIDE, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def native(kind: str, seed: int = 0) -> Native:
    """A medium of a kind that vision LLMs read by themselves."""
    random = np.random.default_rng(seed)
    if kind == "image":
        return Native(kind, picture(seed=seed))
    if kind == "video":
        return Native(kind, random.integers(0, 255, (4, SIDE, SIDE, 3), dtype=np.uint8))
    return Native(kind, random.normal(size=8000).astype(np.float32))


def _pictures(kind: str, **settings) -> Any:
    """An image processor of a kind, on torchvision where that is installed."""
    return getattr(hf, f"{kind}ImageProcessor{'' if HAS_TORCHVISION else 'Pil'}")(**settings)


def _text(kind: str, size: int, **fields) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": size,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 257,
        "eos_token_id": 258,
        "pad_token_id": 259,
        "initializer_range": LOUD,
        "max_position_embeddings": 1024,
        **fields,
    }


def _vision(kind: str | None = None, **fields) -> dict[str, Any]:
    shape = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    return {**({"model_type": kind} if kind else {}), **shape, **fields}


def _turns(before: str, after: str, start: str, marks: Mapping[str, str], first: str = "") -> str:
    """A template of the usual form; ``ROLE`` stands for the role of a turn."""
    opened = before.replace("ROLE", "{{ m['role'] }}")
    media = "".join(f"{{% elif c['type'] == '{kind}' %}}{mark}" for kind, mark in marks.items())
    return (
        f"{first}{{% for m in messages %}}{opened}{{% for c in m['content'] %}}"
        f"{{% if c['type'] == 'text' %}}{{{{ c['text'] }}}}{media}{{% endif %}}"
        f"{{% endfor %}}{after}{{% endfor %}}{{% if add_generation_prompt %}}{start}{{% endif %}}"
    )


def _chatml(marks: Mapping[str, str], first: str = "") -> str:
    turn = "<|im_start|>ROLE\n"
    return _turns(turn, "<|im_end|>\n", turn.replace("ROLE", "assistant"), marks, first)


CHATML = ("<|im_start|>", "<|im_end|>")
MISTRAL_TOKENS = (
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
)
AYA_TOKENS = (
    *("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"),
    *("TILE", "TILE_GLOBAL", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
)
# LLaVA puts the pictures of a turn before its words; Gemma has no role for a system's words.
LLAVA = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}"
    "{% endif %}{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{% for c in m['content'] | selectattr('type', 'equalto', "
    "'text') %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% if messages[0]['content'] is string %}{% set head = messages[0]['content'] + '\n\n' %}"
    "{% else %}{% set head = messages[0]['content'][0]['text'] + '\n\n' %}{% endif %}"
    "{% set turns = messages[1:] %}{% else %}{% set head = '' %}{% set turns = messages %}"
    "{% endif %}{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (head if loop.first else '') }}"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ c['text'] | trim }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PALIGEMMA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}"
    "{% endfor %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] }}{% endfor %}{% endfor %}"
)
IDEFICS = _turns(
    "{{ m['role'] | capitalize }}{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}",
    "<end_of_utterance>\n",
    "Assistant:",
    {"image": "<image>"},
    "<|im_start|>",
)
QWEN = _chatml(
    {
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "video": "<|vision_start|><|video_pad|><|vision_end|>",
    },
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}",
)
QWEN_TOKENS = {
    "named": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    "special": (*CHATML, "<|vision_start|>", "<|vision_end|>"),
    "needs": ("torchvision",),
}
MROPE = {
    "rope_type": "default",
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
    "rope_theta": 10000.0,
}


def _llava(token, size):
    return {
        "vision_config": _vision("clip_vision_model", projection_dim=24),
        "text_config": _text("llama", size),
        "image_token_index": token("<image>"),
        "vision_feature_layer": -1,
    }


def _llava_onevision(token, size):
    return {
        "vision_config": _vision("siglip_vision_model"),
        "text_config": _text("qwen2", size),
        "image_token_index": token("<image>"),
        "video_token_index": token("<video>"),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]],
    }


def _idefics3(token, size):
    return {
        "vision_config": _vision(),
        "text_config": _text("llama", size),
        "image_token_id": token("<image>"),
        "scale_factor": 2,
        "pad_token_id": token(PAD),
    }


def _qwen_vision(**fields):
    return {
        "depth": 3,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_heads": 2,
        "in_channels": 3,
        "out_hidden_size": WIDTH,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        **fields,
    }


def _qwen(vision, text, token):
    return {
        "vision_config": vision,
        "text_config": text,
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


def _qwen2_5_vl(token, size):
    vision = _qwen_vision(in_chans=3, window_size=32, fullatt_block_indexes=[1])
    rope = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
    return _qwen(vision, _text("qwen2_5_vl_text", size, rope_scaling=rope), token)


def _qwen3_vl(token, size, kind="qwen3_vl_text", **fields):
    vision = _qwen_vision(num_position_embeddings=16, deepstack_visual_indexes=[0, 1])
    text = _text(kind, size, head_dim=8, rope_parameters=MROPE, **fields)
    return _qwen(vision, text, token)


def _qwen3_vl_moe(token, size):
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "decoder_sparse_step": 1,
    }
    return _qwen3_vl(token, size, "qwen3_vl_moe_text", **experts)


def _qwen3_5(token, size):
    text = _text(
        "qwen3_5_text",
        size,
        head_dim=8,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
        rope_parameters={**MROPE, "partial_rotary_factor": 1.0},
    )
    return _qwen(_qwen_vision(num_position_embeddings=16), text, token)


SLIDING = {
    "head_dim": 8,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}


def _gemma3(token, size):
    return {
        "vision_config": _vision("siglip_vision_model", vision_use_head=False),
        "text_config": _text("gemma3_text", size, query_pre_attn_scalar=8, **SLIDING),
        "image_token_index": token("<image_soft_token>"),
        "boi_token_index": token("<start_of_image>"),
        "eoi_token_index": token("<end_of_image>"),
        "mm_tokens_per_image": 4,
    }


def _gemma4(token, size):
    heads = {"head_dim": 12, "global_head_dim": 12, "num_key_value_heads": 2}
    vision = _vision("gemma4_vision", pooling_kernel_size=2, position_embedding_size=64, **heads)
    text = _text(
        "gemma4_text",
        size,
        vocab_size_per_layer_input=size,
        hidden_size_per_layer_input=8,
        global_head_dim=8,
        num_kv_shared_layers=0,
        **SLIDING,
    )
    return {
        "vision_config": vision,
        "text_config": text,
        "audio_config": None,
        "image_token_id": token("<|image|>"),
        "video_token_id": token("<|video|>"),
        "audio_token_id": token("<|audio|>"),
        "boi_token_id": token("<|image>"),
        "eoi_token_id": token("<image|>"),
        "boa_token_id": token("<|audio>"),
        "eoa_token_id": token("<audio|>"),
    }


def _paligemma(token, size):
    return {
        "vision_config": _vision(
            "siglip_vision_model", projection_dim=WIDTH, vision_use_head=False
        ),
        "text_config": _text("gemma", size, head_dim=8, num_key_value_heads=1),
        "image_token_index": token("<image>"),
        "projection_dim": WIDTH,
        "hidden_size": WIDTH,
    }


def _internvl(token, size):
    return {
        "vision_config": _vision(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        "text_config": _text("qwen2", size),
        "image_token_id": token("<IMG_CONTEXT>"),
        "downsample_ratio": 0.5,
        "vision_feature_layer": -1,
    }


def _mistral3(token, size):
    return {
        "vision_config": _vision("pixtral", head_dim=12),
        "text_config": _text("mistral", size, head_dim=8, sliding_window=None),
        "image_token_index": token("[IMG]"),
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
    }


def _lfm2_vl(token, size):
    vision = _vision("siglip2_vision_model", num_patches=16, vision_use_head=False)
    layers = ["conv", "full_attention", "conv"]
    return {
        "vision_config": vision,
        "text_config": _text("lfm2", size, layer_types=layers, block_auto_adjust_ff_dim=False),
        "image_token_id": token("<image>"),
        "projector_hidden_size": WIDTH,
        "downsample_factor": 2,
    }


OVIS_MARKS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def _ovis2(token, size):
    words = {"vocab_size": 40, "hidden_stride": 1, "num_visual_indicator_tokens": 5}
    return {
        "vision_config": _vision(**words),
        "text_config": _text("qwen2", size),
        "image_token_id": token("<IMG_ATOM>"),
        "visual_indicator_token_ids": [token(mark) for mark in OVIS_MARKS],
        "hidden_size": WIDTH,
        "vocab_size": size,
    }


def _aya_vision(token, size):
    return {
        "vision_config": _vision("siglip_vision_model", vision_use_head=False),
        "text_config": _text("cohere2", size, sliding_window=16),
        "image_token_index": token("<|IMG_PATCH|>"),
        "downsample_factor": 2,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "adapter_layer_norm_eps": 1e-6,
    }


def _mllama(token, size):
    text = _text("mllama_text_model", size, cross_attention_layers=[1])
    vision = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 48,
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        "max_num_tiles": 2,
    }
    return {
        "text_config": {k: v for k, v in text.items() if k != "model_type"},
        "vision_config": vision,
        "image_token_index": token("<|image|>"),
    }


def _phi4_multimodal(token, size):
    text = _text("phi4_multimodal", size)
    del text["model_type"]
    # Its processor counts on 16 x 16 tokens a crop.
    sizes = {"image_size": 448, "crop_size": 448, "patch_size": 14}
    vision = _vision(**sizes, image_token_id=token("<|image|>"))
    sound = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_blocks": 2,
        "num_attention_heads": 2,
        "ext_pw_out_channel": 24,
        "nemo_conv_channels": 24,
        "input_size": 80,
        "depthwise_separable_out_channel": 24,
        "audio_token_id": token("<|audio|>"),
    }
    return {**text, "vision_config": vision, "audio_config": sound}


def _picture_tokens(side: int = SIDE) -> int:
    """Tokens of a picture whose patches are merged two by two."""
    return (side // PATCH // 2) ** 2


def _qwen_processor(kind, video):
    def make(tokenizer, template):
        pixels = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
        pictures = _pictures("Qwen2VL", patch_size=PATCH, size=pixels)
        clips = getattr(hf, video)(patch_size=PATCH, size={k: 4 * n for k, n in pixels.items()})
        return getattr(hf, kind)(pictures, tokenizer, clips, chat_template=template)

    return make


def _smolvlm_processor(tokenizer, template):
    sizes = {"size": {"longest_edge": SIDE}, "max_image_size": {"longest_edge": SIDE}}
    pictures = _pictures("SmolVLM", do_image_splitting=False, **sizes)
    clips = hf.SmolVLMVideoProcessor(num_frames=2, fps=1, **sizes)
    return hf.SmolVLMProcessor(
        pictures, tokenizer, clips, image_seq_len=_picture_tokens(), chat_template=template
    )


def _gemma4_processor(tokenizer, template):
    pooled = {"patch_size": PATCH, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    return hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        _pictures("Gemma4", **pooled),
        tokenizer,
        hf.Gemma4VideoProcessor(**pooled, num_frames=2),
        chat_template=template,
    )


FAMILIES: dict[str, Family] = {
    "llava": Family(
        _llava,
        LLAVA,
        lambda tokenizer, template: hf.LlavaProcessor(
            _pictures("CLIP", size={"shortest_edge": SIDE}, crop_size=SQUARE),
            tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template,
        ),
        {"image_token": "<image>"},
        adds_bos=True,
    ),
    "llava_onevision": Family(
        _llava_onevision,
        _chatml({"image": "<image>\n", "video": "<video>\n"}),
        lambda tokenizer, template: hf.LlavaOnevisionProcessor(
            _pictures(
                "LlavaOnevision",
                size=SQUARE,
                image_grid_pinpoints=[[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]],
            ),
            tokenizer,
            hf.LlavaOnevisionVideoProcessor(size=SQUARE),
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=template,
        ),
        {"image_token": "<image>", "video_token": "<video>"},
        CHATML,
        ("torchvision",),
    ),
    "smolvlm": Family(
        _idefics3,
        IDEFICS,
        _smolvlm_processor,
        {
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        CHATML[:1],
        ("torchvision", "num2words"),
    ),
    "idefics3": Family(
        _idefics3,
        IDEFICS,
        lambda tokenizer, template: hf.Idefics3Processor(
            _pictures(
                "Idefics3",
                do_image_splitting=False,
                size={"longest_edge": SIDE},
                max_image_size={"longest_edge": SIDE},
            ),
            tokenizer,
            image_seq_len=_picture_tokens(),
            chat_template=template,
        ),
        {},
        (*CHATML[:1], "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    ),
    "qwen2_5_vl": Family(
        _qwen2_5_vl,
        QWEN,
        _qwen_processor("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
        **QWEN_TOKENS,
    ),
    "qwen3_vl": Family(
        _qwen3_vl,
        QWEN,
        _qwen_processor("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
        **QWEN_TOKENS,
    ),
    "qwen3_vl_moe": Family(
        _qwen3_vl_moe,
        QWEN,
        _qwen_processor("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
        **QWEN_TOKENS,
    ),
    "qwen3_5": Family(
        _qwen3_5,
        QWEN,
        _qwen_processor("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
        **QWEN_TOKENS,
    ),
    "gemma3": Family(
        _gemma3,
        GEMMA,
        lambda tokenizer, template: hf.Gemma3Processor(
            _pictures("Gemma3", size=SQUARE),
            tokenizer,
            image_seq_length=4,
            chat_template=template,
        ),
        {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        ("<start_of_turn>", "<end_of_turn>"),
        adds_bos=True,
    ),
    "gemma4": Family(
        _gemma4,
        _turns(
            "<|turn>ROLE\n",
            "<turn|>\n",
            "<|turn>model\n",
            {"image": "<|image|>", "video": "<|video|>", "audio": "<|audio|>"},
            "{{ bos_token }}",
        ),
        _gemma4_processor,
        {
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "image_token": "<|image|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "audio_token": "<|audio|>",
        },
        ("<|video|>", "<|turn>", "<turn|>"),
        ("torchvision",),
    ),
    "paligemma": Family(
        _paligemma,
        PALIGEMMA,
        lambda tokenizer, template: hf.PaliGemmaProcessor(
            _pictures("Siglip", size=SQUARE, image_seq_length=16),
            tokenizer,
            chat_template=template,
        ),
        {"image_token": "<image>"},
    ),
    "internvl": Family(
        _internvl,
        _chatml({"image": "<IMG_CONTEXT>\n", "video": "<video>\n"}),
        lambda tokenizer, template: hf.InternVLProcessor(
            _pictures("GotOcr2", size=SQUARE, crop_to_patches=True, max_patches=3),
            tokenizer,
            hf.InternVLVideoProcessor(size=SQUARE),
            image_seq_length=_picture_tokens(),
            chat_template=template,
        ),
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        CHATML,
        ("torchvision",),
    ),
    "mistral3": Family(
        _mistral3,
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ '[SYSTEM_PROMPT]' + m['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}"
        "{% elif m['role'] == 'user' %}[INST]{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}[IMG]{% else %}{{ c['text'] }}{% endif %}{% endfor %}[/INST]"
        "{% else %}{{ m['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}",
        lambda tokenizer, template: hf.PixtralProcessor(
            _pictures("Pixtral", size={"longest_edge": 2 * SIDE}, patch_size=PATCH),
            tokenizer,
            patch_size=PATCH,
            spatial_merge_size=2,
            chat_template=template,
        ),
        {},
        MISTRAL_TOKENS,
        ("torchvision",),
    ),
    "lfm2_vl": Family(
        _lfm2_vl,
        _chatml({"image": "<image>"}, "{{ bos_token }}"),
        lambda tokenizer, template: hf.Lfm2VlProcessor(
            hf.Lfm2VlImageProcessor(
                tile_size=SIDE,
                encoder_patch_size=PATCH,
                downsample_factor=2,
                min_image_tokens=2,
                max_image_tokens=4,
                max_num_patches=64,
                do_image_splitting=False,
            ),
            tokenizer,
            chat_template=template,
        ),
        {
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        CHATML,
        ("torchvision",),
    ),
    "ovis2": Family(
        _ovis2,
        _chatml({"image": "<image>\n"}),
        lambda tokenizer, template: hf.Ovis2Processor(
            _pictures("Ovis2", size=SQUARE, crop_to_patches=False),
            tokenizer,
            image_seq_length=16,
            chat_template=template,
        ),
        {},
        (*CHATML, "<image>", "<IMG_ATOM>", *OVIS_MARKS),
    ),
    "aya_vision": Family(
        _aya_vision,
        _turns(
            "<|START_OF_TURN_TOKEN|><|{{ m['role'] | upper }}_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            {"image": "<image>"},
            "{{ bos_token }}",
        ),
        lambda tokenizer, template: hf.AyaVisionProcessor(
            _pictures("GotOcr2", size=SQUARE, crop_to_patches=True, max_patches=3),
            tokenizer,
            patch_size=PATCH,
            img_size=SIDE,
            downsample_factor=2,
            chat_template=template,
        ),
        {},
        AYA_TOKENS,
        adds_bos=True,
    ),
    "mllama": Family(
        _mllama,
        _turns(
            "<|start_header_id|>ROLE<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            {"image": "<|image|>"},
            "{{ bos_token }}",
        ),
        lambda tokenizer, template: hf.MllamaProcessor(
            _pictures("Mllama", size=SQUARE, max_image_tiles=2), tokenizer, chat_template=template
        ),
        {"image_token": "<|image|>"},
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        adds_bos=True,
    ),
    "phi4_multimodal": Family(
        _phi4_multimodal,
        _turns(
            "<|ROLE|>",
            "<|end|>",
            "<|assistant|>",
            {"image": "<|image|>", "audio": "<|audio|>"},
        ),
        lambda tokenizer, template: hf.Phi4MultimodalProcessor(
            hf.Phi4MultimodalImageProcessor(dynamic_hd=1),
            hf.Phi4MultimodalFeatureExtractor(),
            tokenizer,
        ),
        {"image_token": "<|image|>", "audio_token": "<|audio|>"},
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ("torchvision",),
    ),
}

# Beside torchvision (``make vision``) those that need it; the others have been tested without.
WITH_PROCESSOR = [
    pytest.param(
        name, marks=pytest.mark.skipif(not family.has_processor, reason=f"needs {family.needs}")
    )
    for name, family in FAMILIES.items()
    if family.needs or not HAS_TORCHVISION
]
