import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pathweave.bases import weights_dir
from pathweave.encoders.efficientnet import EfficientNet, EfficientNetLite0, SameConv2d
from pathweave.encoders.media import Frames
from pathweave.errors import RecipeError

GOLDEN = [0.046469, 0.31684, 6.0]


def pictures(frames, height, width, seed=0):
    shape = (frames, height, width, 3)
    return Frames(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def encoder(random_weights):
    torch.manual_seed(0)
    return EfficientNetLite0(random_weights(EfficientNet()), size=32)


def test_the_network_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in EfficientNet().parameters()) == 4_652_008


def test_uneven_padding_goes_below_and_to_the_right():
    conv = SameConv2d(1, 1, 3, stride=2)
    x = torch.randn(1, 1, 6, 6)
    assert torch.equal(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("size", [1, 7, 8])
def test_the_output_has_a_cell_per_stride(kernel, stride, size):
    out = SameConv2d(1, 1, kernel, stride)(torch.zeros(1, 1, size, size))
    assert out.shape[2:] == (-(-size // stride),) * 2


def test_media_of_any_shape_give_their_own_number_of_frames(encoder):
    features = encoder([pictures(1, 5, 9), pictures(3, 40, 33), pictures(1, 1, 1)])
    assert [tuple(f.shape) for f in features] == [(1, 1, 1280), (3, 1, 1280), (1, 1, 1280)]
    assert all(not f.requires_grad and not f.is_inference() for f in features)
    assert encoder([]) == []


def test_features_do_not_depend_on_the_rest_of_the_batch(encoder):
    media = [pictures(1, 20, 20, seed) for seed in range(3)]
    together = encoder(media)
    for medium, features in zip(media, together, strict=True):
        torch.testing.assert_close(encoder([medium])[0], features, rtol=1e-4, atol=1e-4)


def test_a_long_clip_is_encoded_in_parts(encoder):
    clip = pictures(70, 4, 4)
    [features] = encoder([clip])
    assert features.shape == (70, 1, 1280)
    torch.testing.assert_close(
        encoder([Frames(clip.pixels[64:])])[0], features[64:], rtol=1e-4, atol=1e-4
    )


def test_the_fingerprint_names_kind_size_and_weights(random_weights):
    directory = random_weights(EfficientNet())
    ready = {"files": {"model.safetensors": {"sha256": "0123456789abcdef" * 4}}}
    unnamed = EfficientNetLite0(directory).fingerprint
    (directory / "READY.json").write_text(json.dumps(ready), encoding="utf-8")
    named = EfficientNetLite0(directory, size=64).fingerprint
    assert named == "efficientnet-lite0 size=64 weights=0123456789abcdef"
    assert unnamed.startswith("efficientnet-lite0 size=96 weights=")
    assert unnamed[-16:] != named[-16:]


@pytest.mark.parametrize("size", [0, -32, 100])
def test_the_size_must_fit_the_stride(tmp_path, size):
    with pytest.raises(RecipeError, match="multiple of 32, got"):
        EfficientNetLite0(tmp_path, size=size)


@pytest.mark.slow
def test_the_real_weights_give_the_recorded_features():
    """Recorded from this class when it agreed to the last bit with efficientnet-lite-pytorch."""
    encoder = EfficientNetLite0(weights_dir("efficientnet-lite0"))
    ramp = np.linspace(0, 255, 96 * 96 * 3).reshape(1, 96, 96, 3).astype(np.uint8)
    [features] = encoder([Frames(ramp)])
    found = [features.mean(), features.std(), features[0, 4].amax()]
    golden = torch.tensor(GOLDEN)
    torch.testing.assert_close(torch.stack(found), golden, rtol=1e-4, atol=1e-4)
