"""What encoders make of media, against the networks and adapters themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from pathweave.bases import hub
from pathweave.encoders.beats import BeatsNetwork, BeatsShape
from pathweave.encoders.efficientnet import EfficientNet
from pathweave.encoders.media import Frames, Waveform
from pathweave.encoders.pretrained import Pretrained
from pathweave.encoders.sound_effects import SoundEffectsEncoder
from pathweave.encoders.whisper import WhisperEncoder
from pathweave.errors import FetchError, RecipeError
from pathweave.estimate.encoders import UNKNOWN_TOKENS, features_of
from pathweave.recipe.schema import Component, Modality
from tests.encoders.families import FAMILIES
from tests.estimate.measure import measured_flops


def modality(decoder, encoder):
    return Modality(
        decoder=Component.model_validate(decoder), encoder=Component.model_validate(encoder)
    )


def shape(decoder, encoder):
    found = features_of(modality(decoder, encoder))
    return found.units, found.tokens, found.width


def test_pictures():
    small = {"kind": "efficientnet-lite0"}
    found = features_of(modality({"kind": "clip", "frames": 3}, small))
    assert (found.units, found.tokens, found.width) == (3, 9, 1280)
    network = EfficientNet().eval()
    assert found.parameters * 4 == found.weight_bytes == sum(p.nbytes for p in network.parameters())
    with torch.no_grad():
        assert found.flops == measured_flops(lambda: network(torch.zeros(3, 3, 96, 96)))[0]
    assert shape({"kind": "points", "views": 4}, {**small, "size": 64}) == (4, 4, 1280)
    assert shape({"kind": "range_map", "pair": True}, small) == (2, 9, 1280)
    assert shape({"kind": "picture"}, small) == (1, 9, 1280)


def encode_sound(encoder, seconds):
    """What an encoder makes of silence, with random weights."""
    encoder.network.eval()
    samples = np.zeros(round(encoder.rate * seconds), np.float32)
    [features] = encoder([Waveform(samples, encoder.rate)])
    return tuple(features.shape)


@pytest.mark.parametrize("seconds", [0.1, 1.0])
@pytest.mark.parametrize("bands", [1, 3])
def test_sound_effects(seconds, bands):
    encoder = SoundEffectsEncoder(Path(), bands, with_weights=False)
    expected = encode_sound(encoder, seconds)
    decoder = {"kind": "sound", "rate": 44_100, "seconds": seconds}
    assert shape(decoder, {"kind": "sound-effects", "bands": bands}) == expected


def test_whisper():
    expected = encode_sound(WhisperEncoder(Path(), with_weights=False), 0.93)
    assert shape({"kind": "sound", "seconds": 0.93}, {"kind": "whisper"}) == expected


def test_beats():
    network = BeatsNetwork(BeatsShape(16, 4, 8, 1, 2, 16, 4, 2, 8, 20))
    assert network(torch.zeros(1, 512, 128)).shape[1] == 256
    sound = {"kind": "sound", "seconds": 10.24}
    assert shape(sound, {"kind": "beats", "directory": "none.pt", "windows": 3}) == (3, 256, 768)


def test_the_tower_of_a_directory_is_read_from_its_configuration(tmp_path, monkeypatch):
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    hf.InstructBlipConfig(vision_config=vision).save_pretrained(tmp_path)
    found = features_of(
        modality({"kind": "picture"}, {"kind": "eva-clip-g", "directory": str(tmp_path)})
    )
    assert (found.units, found.tokens, found.width) == (1, 5, 24)
    tower = hf.InstructBlipVisionModel(hf.InstructBlipVisionConfig(**vision))
    parameters = sum(p.numel() for p in tower.parameters()) - 2 * 24  # its last norm is the path's
    assert (found.parameters, found.weight_bytes) == (parameters, 2 * parameters)
    pixels = torch.zeros(1, 3, 28, 28)
    with torch.no_grad():
        assert found.flops == measured_flops(lambda: tower(pixels).last_hidden_state)[0]
    wide = {"kind": "eva-clip-g", "directory": str(tmp_path), "size": 42, "precision": "full"}
    assert shape({"kind": "picture"}, wide) == (1, 10, 24)
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    with pytest.raises(FetchError, match=r"nobody/nothing/config\.json cannot be downloaded"):
        shape({"kind": "picture"}, {"kind": "eva-clip-g", "directory": "nobody/nothing"})


@pytest.mark.parametrize("pool", [None, 3])
@pytest.mark.parametrize("name", ["siglip", "convnext", "videomae", "ast", "wav2vec2"])
def test_any_encoder_of_transformers(tmp_path, name, pool):
    torch.manual_seed(0)
    model = FAMILIES[name].model()
    model.save_pretrained(tmp_path)
    FAMILIES[name].processor().save_pretrained(tmp_path)
    options = {"kind": "transformers", "model": str(tmp_path), "precision": "full"}
    options |= {} if pool is None else {"pool": pool}
    encoder = Pretrained(str(tmp_path), pool=pool, precision="full")
    if encoder.accepts is Frames:
        medium, decoder = Frames(np.zeros((4, 40, 40, 3), np.uint8)), {"kind": "clip", "frames": 4}
    else:
        rate = encoder.processor.sampling_rate
        medium = Waveform(np.zeros(round(rate * 1.5), np.float32), rate)
        decoder = {"kind": "sound", "rate": rate, "seconds": 1.5}
    (tmp_path / "model.safetensors").unlink()
    found = features_of(modality(decoder, options))
    assert (found.units, found.tokens, found.width) == tuple(encoder([medium])[0].shape)
    assert found.parameters == sum(p.numel() for p in encoder.network.parameters())


def test_features_of_another_program():
    found = features_of(modality({"kind": "array"}, {"kind": "precomputed", "width": 7}))
    assert (found.units, found.tokens, found.width, found.flops) == (1, UNKNOWN_TOKENS, 7, 0)


def test_clouds_of_points():
    assert shape({"kind": "points"}, {"kind": "ulip2", "directory": "none.pt"}) == (1, 1, 512)


@pytest.mark.parametrize(
    ("decoder", "encoder", "message"),
    [
        ({"kind": "picture"}, {"kind": "beets"}, "encoder must be one of .*did you mean 'beats'"),
        (
            {"kind": "array"},
            {"kind": "precomputed"},
            "encoder 'precomputed': width: Field required; correct it",
        ),
        (
            {"kind": "array"},
            {"kind": "precomputed", "width": "8"},
            "encoder 'precomputed': width: must be a valid integer, got '8'",
        ),
        (
            {"kind": "sound"},
            {"kind": "beats", "widows": 3},
            r"field widows must be one of \['directory', 'windows'\], got 'widows'",
        ),
        (
            {"kind": "picture"},
            {"kind": "transformers"},
            "encoder 'transformers': model: Field required",
        ),
        (
            {"kind": "sound"},
            {"kind": "sound-effects", "bands": 5},
            "bands must divide 12, got 5; 3 is a good start",
        ),
        (
            {"kind": "picture"},
            {"kind": "whisper"},
            "encoder 'whisper' and decoder 'picture' must fit each other .*no attribute 'rate'",
        ),
        (
            {"kind": "picture"},
            {"kind": "transformers", "model": "facebook/dinov2-base"},
            r"estimate must find config\.json .* got model 'facebook/dinov2-base'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(decoder, encoder, message):
    with pytest.raises(RecipeError, match=message):
        features_of(modality(decoder, encoder))


def test_a_directory_without_an_encoder_of_media(tmp_path):
    hf.LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="must have one encoder of pictures or sounds"):
        shape({"kind": "picture"}, {"kind": "transformers", "model": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(FetchError, match="must be a directory with config"):
        shape({"kind": "picture"}, {"kind": "transformers", "model": str(tmp_path)})
