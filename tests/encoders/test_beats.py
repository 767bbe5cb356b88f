import numpy as np
import pytest
import torch

from pathweave.decoders.sound import Sound
from pathweave.encoders import Encoder, build_encoder
from pathweave.encoders.beats import Beats, BeatsNetwork, buckets, read_beats
from pathweave.encoders.kaldi import filter_bank
from pathweave.encoders.media import Waveform
from pathweave.errors import FetchError, MediaError, RecipeError
from tests.decoders.files import wav
from tests.encoders.golden import BEATS_CFG, arrays, expanded, parameters, real, write_beats

NAME = "BEATs_iter3_plus_AS2M.pt"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_beats(tmp_path_factory.mktemp("beats") / NAME)


@pytest.fixture(scope="module")
def encoder(file):
    return Beats(file.parent)


def sound(samples, rate=16_000, seed=0):
    noise = np.random.default_rng(seed).normal(size=samples) / 10
    return Waveform(noise.astype(np.float32), rate)


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_the_authors_network_gives_the_same_tokens(file, case):
    stored, network = arrays("beats"), read_beats(file)
    with torch.no_grad():
        tokens = network(stored[f"in/{case}/fbank"])
        bias = network.encoder.position_bias(tokens.shape[1])
    torch.testing.assert_close(tokens, stored[f"out/{case}/tokens"], atol=1e-5, rtol=0)
    assert torch.equal(bias, stored[f"out/{case}/position_bias"])


@pytest.mark.parametrize(("name", "sizes"), [("tiny", (32, 20)), ("real", (320, 800))])
def test_buckets_of_distances(name, sizes):
    stored = arrays("beats_buckets")
    assert torch.equal(buckets(stored[f"relative_{name}"], *sizes), stored[f"bucket_{name}"])


def test_the_filter_bank_is_normalised_and_followed_by_zeros(file):
    stored = arrays("fbank")
    mels = Beats(file, windows=1).prepare(stored["waveform"][None])[0]
    torch.testing.assert_close(mels[:98], stored["normalised_torchaudio"], atol=1e-4, rtol=0)
    assert not mels[98:].any()


def test_windows_follow_each_other_and_the_rest_is_cut(encoder):
    long = torch.tensor(sound(200_000).samples)[None]
    first, second = encoder.prepare(long)
    later = encoder.prepare(long[:, 512 * 160 :])
    assert first.shape == (512, 128)
    torch.testing.assert_close(later[0], second, atol=1e-4, rtol=1e-4)
    assert torch.equal(encoder.prepare(long[:, : 1023 * 160 + 400])[1], second)


def test_every_sound_has_all_windows(encoder):
    assert isinstance(encoder, Encoder)
    features = encoder([sound(20_000), sound(20_000, seed=1), sound(90_000)])
    assert [tuple(f.shape) for f in features] == [(2, 256, 24)] * 3
    assert not torch.equal(features[0], features[1])
    torch.testing.assert_close(encoder([sound(20_000, seed=1)])[0], features[1])
    assert encoder([]) == []


@pytest.mark.parametrize("seconds", [0.3, 4.2, 10.24, 11.0])
def test_what_is_missing_is_filled_up_as_in_the_papers_training(encoder, seconds):
    """The normalised filter bank of the sound itself, then zeros, cut at 1,024 frames."""
    samples = sound(round(16_000 * seconds)).samples
    data = wav(samples[:, None], subtype="FLOAT")
    decoded = Sound(seconds=10.255, pad=False)(data, "a").samples
    mels = (filter_bank(torch.tensor(samples)[None])[0, :1024] - 15.41663) / (2 * 6.55582)
    expected = torch.zeros(1024, 128)
    expected[: len(mels)] = mels
    windows = encoder.prepare(torch.tensor(decoded)[None])
    torch.testing.assert_close(windows.flatten(0, 1), expected)


@pytest.mark.parametrize("samples", [0, 1, 399, 400])
def test_hardly_a_sound(file, samples):
    [features] = Beats(file, windows=1)([sound(samples)])
    assert features.shape == (1, 256, 24)
    assert features.isfinite().all()


def test_wrong_rate(encoder):
    with pytest.raises(MediaError, match="sampled at 16000 Hz, got 44100 Hz; set the decoder's"):
        encoder([sound(1000, rate=44_100)])


def test_the_fingerprint_names_windows_and_weights(file, tmp_path):
    other = write_beats(tmp_path / "other.pt", **{"layer_norm.bias": torch.ones(16)})
    prints = {Beats(file).fingerprint, Beats(file, 1).fingerprint, Beats(other).fingerprint}
    assert len(prints) == 3
    assert Beats(file).fingerprint.startswith("beats windows=2 weights=")
    assert build_encoder("beats", directory=str(file)).fingerprint == Beats(file).fingerprint


def test_the_fine_tuned_checkpoint_is_read_without_its_classifier(file, tmp_path):
    head = {"predictor.weight": torch.ones(527, 24), "predictor.bias": torch.ones(527)}
    tuned = write_beats(tmp_path / "tuned.pt", cfg={"finetuned_model": True}, **head)
    assert Beats(tuned).fingerprint == Beats(file).fingerprint


def test_every_tensor_of_the_full_size_network_has_a_place(tmp_path):
    listed = real("beats_iter3plus")
    shapes = listed["state_dict"] | {"predictor.weight": [527, 768], "predictor.bias": [527]}
    torch.save({"cfg": listed["settings"], "model": expanded(shapes)}, tmp_path / NAME)
    network = read_beats(tmp_path / NAME)
    assert isinstance(network, BeatsNetwork)
    # Eleven copies of the table of positions; the scales of weight normalisation are folded in.
    assert sum(p.numel() for p in network.parameters()) == listed["n_elements"] - 11 * 3840 - 128


def test_windows_must_be_positive(file):
    with pytest.raises(RecipeError, match=r"windows must be positive, got 0; 2 cover 10\.24 s"):
        Beats(file, windows=0)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"deep_norm": False}, "must have deep_norm True in its cfg, got False"),
        ({"layer_norm_first": True}, "must have layer_norm_first False in its cfg, got True"),
        ({"conv_pos": None}, "must have a positive conv_pos in its cfg, got None"),
        ({"encoder_embed_dim": 48}, r"weight of the shape \[48, 16\], got \[24, 16\]: another"),
        (
            {"conv_pos_groups": 5},
            r"have an encoder_embed_dim that conv_pos_groups 5 divides, got 24",
        ),
        ({"encoder_layers": 4}, r"got no encoder\.layers\.3\.fc1\.bias"),
        ({"encoder_layers": 2}, r"got encoder\.layers\.2\.fc1\.bias as well"),
    ],
)
def test_another_model_is_refused(tmp_path, cfg, message):
    with pytest.raises(FetchError, match=message + r".*; download BEATs_iter3_plus_AS2M\.pt from"):
        read_beats(write_beats(tmp_path / NAME, cfg=cfg))


def test_layers_must_share_their_positions(tmp_path):
    name = "encoder.layers.1.self_attn.relative_attention_bias.weight"
    file = write_beats(tmp_path / NAME, **{name: torch.ones(32, 4)})
    with pytest.raises(FetchError, match="share one position bias among layers, got several"):
        read_beats(file)


@pytest.mark.parametrize("missing", ["encoder.pos_conv.0.weight_g", "layer_norm.bias"])
def test_a_missing_tensor_is_named(tmp_path, missing):
    state = {name: tensor for name, tensor in parameters("beats").items() if name != missing}
    torch.save({"cfg": BEATS_CFG, "model": state}, tmp_path / NAME)
    with pytest.raises(FetchError, match=r"hold the weights of BEATs iter3\+ \(AS2M\), got no "):
        read_beats(tmp_path / NAME)


def test_a_file_of_another_layout(tmp_path):
    torch.save(parameters("beats"), tmp_path / NAME)
    with pytest.raises(FetchError, match=r"must hold cfg and model, got \['encoder\.layer_norm"):
        read_beats(tmp_path / NAME)
