import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch.nn import functional as F
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipVisionConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from pathweave.encoders import Encoder, build_encoder, eva_clip, eva_weights
from pathweave.encoders.eva_clip import EvaClip
from pathweave.encoders.eva_weights import LAVIS, empty_vision_model, renamed, resized_positions
from pathweave.encoders.media import Frames
from pathweave.encoders.published import assign
from pathweave.errors import FetchError, RecipeError
from tests.encoders.golden import arrays, parameters, real

TINY = {
    "hidden_size": 24,
    "intermediate_size": 104,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "patch_size": 14,
    "image_size": 28,
}
NAME = "eva_vit_g.pth"


@pytest.fixture(scope="module")
def lavis(tmp_path_factory):
    file = tmp_path_factory.mktemp("lavis") / NAME
    torch.save(parameters("eva_vit"), file)
    return file


@pytest.fixture(scope="module")
def instructblip(tmp_path_factory, lavis):
    """A whole tiny InstructBLIP in shards, with the stored weights in its vision model."""
    directory = tmp_path_factory.mktemp("instructblip")
    text = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "vocab_size": 50}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    qformer = {"hidden_size": 16, "intermediate_size": 16, "encoder_hidden_size": 24}
    qformer |= {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    config = InstructBlipConfig(vision_config=TINY, qformer_config=qformer, text_config=text)
    model = InstructBlipForConditionalGeneration(config)
    state = renamed(parameters("eva_vit"), 3, lavis)
    model.vision_model.load_state_dict(state, strict=False)
    stored = arrays("eva_vit")
    model.vision_model.post_layernorm.weight.data = stored["ln/weight"]
    model.save_pretrained(directory, max_shard_size="40KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    return directory


@pytest.fixture
def tiny(monkeypatch):
    """Make files in LAVIS' format be of the stored size, which no such file says."""
    monkeypatch.setattr(eva_weights, "VIT_G", TINY)


def frames(count, height, width, seed=0):
    shape = (count, height, width, 3)
    return Frames(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("layout", ["lavis", "instructblip"])
@pytest.mark.parametrize(
    ("size", "pixels", "tokens"),
    [(None, "in/image", "out/tokens"), (42, "interp/image_42", "interp/tokens_42")],
)
def test_the_authors_network_gives_the_same_tokens(request, layout, size, pixels, tokens):
    stored = arrays("eva_vit")
    encoder = EvaClip(request.getfixturevalue(layout), "full", size)
    torch.testing.assert_close(encoder.encode(stored[pixels]), stored[tokens], atol=2e-5, rtol=0)


def test_the_norm_of_the_path_completes_the_tower_of_transformers(instructblip):
    stored, config = arrays("eva_vit"), InstructBlipConfig.from_pretrained(instructblip)
    model = InstructBlipForConditionalGeneration.from_pretrained(instructblip).vision_model.eval()
    with torch.no_grad():
        theirs = model(stored["in/image"])
        norm = model.post_layernorm
        tokens = EvaClip(instructblip, "full").encode(stored["in/image"])
        ours = F.layer_norm(
            tokens, (24,), norm.weight, norm.bias, config.vision_config.layer_norm_eps
        )
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("table", "resized", "side"),
    [
        ("param/pos_embed", "interp/pos_embed_2to3", 3),
        ("interp/pos_embed_4", "interp/pos_embed_4to3", 3),
    ],
)
def test_position_embeddings_are_interpolated(table, resized, side):
    stored = arrays("eva_vit")
    found = resized_positions(stored[table], side)
    torch.testing.assert_close(found, stored[resized], atol=5e-6, rtol=0)
    assert (
        resized_positions(stored[table], int((stored[table].shape[1] - 1) ** 0.5)) is stored[table]
    )


@pytest.mark.usefixtures("tiny")
def test_half_precision_is_close(lavis, monkeypatch):
    monkeypatch.setattr(eva_clip, "half_dtype", lambda: torch.bfloat16)
    pixels, full, half = arrays("eva_vit")["in/image"], EvaClip(lavis, "full"), EvaClip(lavis)
    expected, found = full.encode(pixels), half.encode(pixels)
    assert 0 < (found - expected).norm() / expected.norm() < 0.01
    assert found.dtype == torch.float32
    assert half.network.encoder.layers[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert half.network.encoder.layers[0].layer_norm1.weight.dtype == torch.float32
    assert "precision=bfloat16" in half.fingerprint
    assert "precision=float32" in full.fingerprint


@pytest.mark.usefixtures("tiny")
def test_every_setting_and_the_weights_are_in_the_fingerprint(lavis, instructblip, tmp_path):
    torch.save(parameters("eva_vit") | {"cls_token": torch.ones(1, 1, 24)}, tmp_path / NAME)
    encoders = [EvaClip(p, "full", s) for p in (lavis, tmp_path) for s in (28, 42)]
    assert len({encoder.fingerprint for encoder in encoders}) == 4
    # The same weights in another format give the same features.
    assert EvaClip(instructblip, "full").fingerprint == encoders[0].fingerprint


def test_media_of_any_shape_give_their_own_number_of_frames(instructblip):
    encoder = EvaClip(instructblip, "full")
    assert isinstance(encoder, Encoder)
    assert (encoder.width, encoder.size) == (24, 28)
    media = [frames(1, 5, 9), frames(20, 40, 33), frames(1, 28, 28)]
    features = encoder(media)
    assert [tuple(f.shape) for f in features] == [(1, 5, 24), (20, 5, 24), (1, 5, 24)]
    for medium, expected in zip(media, features, strict=True):
        torch.testing.assert_close(encoder([medium])[0], expected, atol=1e-5, rtol=1e-5)
    assert not any(f.requires_grad for f in features)
    assert encoder([]) == []


def test_pictures_are_prepared_as_by_the_processor_of_instructblip(instructblip):
    medium, encoder = frames(2, 61, 43), EvaClip(instructblip)
    found = encoder.prepare(torch.stack(encoder.units(medium)))
    processor = BlipImageProcessorPil(size={"height": 28, "width": 28})
    expected = processor(list(medium.pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_pixels_have_the_scale_of_clip(instructblip):
    white = EvaClip(instructblip).prepare(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    expected = [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258]
    assert white.flatten()[:2].tolist() == pytest.approx(expected)


def test_every_tensor_of_the_full_size_network_has_a_place(tmp_path):
    listed = real("eva_vit_g")
    last = {n.replace("blocks.0.", "blocks.39."): s for n, s in listed["state_dict"].items()}
    head = {"norm.weight": [1408], "norm.bias": [1408], "head.weight": [1024, 1408]}
    shapes = last | head | {"head.bias": [1024]} | listed["state_dict"]
    assert len(shapes) == 511 + 13 + 4
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    network = empty_vision_model(InstructBlipVisionConfig(**eva_weights.VIT_G))
    assign(network, renamed(state, 39, tmp_path), tmp_path, LAVIS)
    # The biases of the keys are zeros that the file does not hold.
    assert sum(p.numel() for p in network.parameters()) == listed["n_elements"] + 39 * 1408


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("size", [0, 13, 30])
def test_the_size_must_fit_the_patches(lavis, size):
    with pytest.raises(RecipeError, match=f"size must be a positive multiple of 14, got {size}"):
        EvaClip(lavis, size=size)


def test_a_file_of_another_width(tmp_path):
    state = parameters("eva_vit")
    # As many blocks as the real one, or the missing ones would be named first.
    blocks = {
        name.replace("blocks.0.", f"blocks.{i}."): tensor
        for i in range(39)
        for name, tensor in state.items()
        if name.startswith("blocks.0.")
    }
    torch.save(state | blocks, tmp_path / NAME)
    message = r"hold embeddings\.class_embedding of the shape \[1, 1, 1408\], got \[1, 1, 24\]"
    with pytest.raises(FetchError, match=message):
        EvaClip(tmp_path)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.mlp.fc1.bias": None}, r"got no encoder\.layers\.1\.mlp\.fc1\.bias"),
        ({"blocks.1.attn.v_bias": None}, r"got no encoder\.layers\.1\.self_attn\.qkv\.bias"),
        ({"blocks.1.ls1.gamma": torch.ones(24)}, r"got blocks\.1\.ls1\.gamma as well"),
        ({"rope.freqs_cos": torch.ones(1)}, r"got rope\.freqs_cos as well"),
        ({"pos_embed": torch.ones(1, 7, 24)}, r"of the shape \[1, 5, 24\], got \[1, 7, 24\]"),
        ({"pos_embed": torch.ones(7)}, r"of the shape \[1, 5, 24\], got \[7\]"),
    ],
)
def test_another_model_is_refused(tmp_path, change, message):
    state = {k: v for k, v in (parameters("eva_vit") | change).items() if v is not None}
    torch.save(state, tmp_path / NAME)
    with pytest.raises(FetchError, match=message + r".*; download eva_vit_g\.pth from https"):
        EvaClip(tmp_path)


@pytest.mark.parametrize("place", ["weights/eva_vit_g.pth", "weights/vit.safetensors"])
def test_a_file_that_is_not_there_is_no_model_of_the_hub(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eva_weights, "snapshot", lambda _: pytest.fail("asked the hub"))
    with pytest.raises(FetchError, match=rf"^{place} must be or hold .*, got nothing; download"):
        EvaClip(Path(place))


def test_a_missing_file_says_what_to_put_where(tmp_path):
    message = (
        r"got a directory without eva_vit_g\.pth; download .*LAVIS/models/BLIP2/.* \(or a whole"
    )
    with pytest.raises(FetchError, match=message):
        EvaClip(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "must hold the configuration of .*, got Expecting property name"),
        ("[]", "must hold the configuration of .*, got a list in config"),
        (
            '{"vision_config": {"hidden_size": "wide"}}',
            "hold the sizes of a vision model, got .*wide",
        ),
        ('{"vision_config": {"hidden_size": 10}}', "sizes of a vision model, got .* divisible by"),
        ('{"vision_config": {"patch_size": 0}}', "must hold the sizes of a vision model, got"),
        ('{"vision_config": {"image_size": [28, 14]}}', "must hold the sizes of a vision model"),
        ('{"vision_config": {}}', r"must hold model\.safetensors or .* got none"),
    ],
)
def test_a_directory_without_a_tower(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(FetchError, match=message):
        EvaClip(tmp_path)


def test_a_shard_that_is_missing_or_truncated(instructblip, tmp_path):
    for file in instructblip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("model-00001-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(FetchError, match=r"model-00001-.* must be a whole file"):
        EvaClip(tmp_path)
    shard.unlink()
    with pytest.raises(FetchError, match=r"must hold all . files of weights, got no model-00001-"):
        EvaClip(tmp_path)


def test_a_wider_configuration_than_the_weights(instructblip, tmp_path):
    for file in instructblip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["hidden_size"] = 48
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(FetchError, match=r"of the shape \[1, 1, 48\], got \[1, 1, 24\]: another"):
        EvaClip(tmp_path)


def test_a_model_of_the_hub_is_read_from_its_cache(instructblip, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--owner--blip" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(instructblip)
    (tmp_path / "models--owner--blip" / "refs").mkdir()
    (tmp_path / "models--owner--blip" / "refs" / "main").write_text("0123", encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    encoder = build_encoder("eva-clip-g", directory="owner/blip", precision="full")
    assert encoder.fingerprint == EvaClip(instructblip, "full").fingerprint
    with pytest.raises(
        FetchError, match=r"owner/other must be a directory or .*place config\.json"
    ):
        build_encoder("eva-clip-g", directory="owner/other")
