"""Tiny random models of transformers, with their processors, in the published layout.

``FAMILIES`` maps a name to what makes the model, what makes the processor, and how features are
had by calling transformers directly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor

LAYERS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
}
PICTURE = {**LAYERS, "image_size": 32, "patch_size": 16}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
TEXT = {**LAYERS, "vocab_size": 50, "max_position_embeddings": 16}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


@dataclass(frozen=True)
class Family:
    model: Callable[[], Any]
    processor: Callable[[], Any]
    features: Callable[[Any, Any], Tensor] = lambda model, inputs: model(**inputs).last_hidden_state


def _map(states: Tensor) -> Tensor:
    """Cells of a feature map, row by row, written as a loop over them."""
    _, _, rows, columns = states.shape
    return torch.stack([states[:, :, i, j] for i in range(rows) for j in range(columns)], dim=1)


def _clip() -> Any:
    vision = {**PICTURE, "projection_dim": 8}
    config = hf.CLIPConfig(text_config={**TEXT, **IDS}, vision_config=vision, projection_dim=8)
    return hf.CLIPModel(config)


def _clap(fused: bool) -> Any:
    sound = {
        "spec_size": 64,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "num_mel_bins": 16,
        "hidden_size": 32,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 1],
        "num_attention_heads": [1, 2, 2],
        "num_hidden_layers": 3,
        "window_size": 4,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
        "projection_dim": 8,
        "aff_block_r": 1,
    }
    text = {**TEXT, "projection_dim": 8}
    return hf.ClapModel(hf.ClapConfig(audio_config=sound, text_config=text, projection_dim=8))


def _clap_extractor(fused: bool) -> Any:
    return hf.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8000,
        hop_length=80,
        max_length_s=1,
        fft_window_size=256,
        frequency_max=4000,
        truncation="fusion" if fused else "rand_trunc",
    )


def _whisper() -> Any:
    config = hf.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=16,
        max_source_positions=50,
        max_target_positions=8,
        vocab_size=50,
        init_std=0.2,
        decoder_start_token_id=0,
        **IDS,
    )
    return hf.WhisperForConditionalGeneration(config)


def _wav2vec2() -> Any:
    config = hf.Wav2Vec2Config(
        **LAYERS,
        conv_dim=[8, 8],
        conv_stride=[20, 16],
        conv_kernel=[40, 32],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        vocab_size=10,
    )
    return hf.Wav2Vec2ForCTC(config)


FAMILIES = {
    "clip": Family(
        _clip,
        lambda: hf.CLIPImageProcessorPil(**CROPPED),
        lambda model, inputs: model.vision_model(**inputs).last_hidden_state,
    ),
    "clip-vision": Family(
        lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**PICTURE)),
        lambda: hf.CLIPImageProcessorPil(**CROPPED),
    ),
    "siglip": Family(
        lambda: hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=PICTURE)),
        lambda: hf.SiglipImageProcessorPil(**SQUARE),
        lambda model, inputs: model.vision_model(**inputs).last_hidden_state,
    ),
    "dinov2": Family(
        lambda: hf.Dinov2Model(hf.Dinov2Config(**PICTURE)),
        lambda: hf.BitImageProcessorPil(**CROPPED),
    ),
    "dinov3": Family(
        lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**PICTURE, num_register_tokens=2)),
        lambda: hf.ViTImageProcessorPil(**SQUARE),
    ),
    # A classifier: its file lacks the pooler of the plain model and holds a head beyond it.
    "vit": Family(
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**PICTURE)),
        lambda: hf.ViTImageProcessorPil(**SQUARE),
    ),
    "convnext": Family(
        lambda: hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[4, 8, 8, 12], depths=[1] * 4)),
        lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 64}),
        lambda model, inputs: _map(model(**inputs).last_hidden_state),
    ),
    "videomae": Family(
        lambda: hf.VideoMAEModel(hf.VideoMAEConfig(**PICTURE, num_frames=4)),
        lambda: hf.VideoMAEImageProcessorPil(**CROPPED),
    ),
    "ast": Family(
        lambda: hf.ASTModel(hf.ASTConfig(**LAYERS, max_length=64, num_mel_bins=32)),
        lambda: hf.ASTFeatureExtractor(max_length=64, num_mel_bins=32),
    ),
    "clap": Family(
        lambda: _clap(fused=False),
        lambda: _clap_extractor(fused=False),
        lambda model, inputs: _map(model.audio_model(**inputs).last_hidden_state),
    ),
    "clap-fused": Family(
        lambda: _clap(fused=True),
        lambda: _clap_extractor(fused=True),
        lambda model, inputs: _map(model.audio_model(**inputs).last_hidden_state),
    ),
    "whisper": Family(
        _whisper,
        lambda: hf.WhisperFeatureExtractor(feature_size=16, chunk_length=1),
        lambda model, inputs: model.encoder(**inputs).last_hidden_state,
    ),
    "wav2vec2": Family(_wav2vec2, lambda: hf.Wav2Vec2FeatureExtractor()),
}
