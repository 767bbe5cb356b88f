"""Both sound encoders, with random weights."""

import json

import numpy as np
import pytest
import torch

from pathweave.bases import weights_dir
from pathweave.encoders.media import Waveform
from pathweave.encoders.sound_effects import SoundEffectsEncoder, SoundEffectsNetwork
from pathweave.encoders.whisper import WhisperEncoder, whisper_network
from pathweave.errors import MediaError, RecipeError

CONFIG = {
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_mels": 80,
    "rate": 16000,
    "window": 400,
    "hop": 160,
    "max_positions": 100,
}

GOLDEN = [7.1922, 1.1273, 0.48647, 4.1984]


def network():
    return whisper_network(80, width=16, num_layers=2, num_heads=2, max_positions=100)


def sound(samples, rate, seed=0):
    noise = np.random.default_rng(seed).normal(size=samples) / 10
    return Waveform(noise.astype(np.float32), rate)


@pytest.fixture
def whisper(random_weights):
    torch.manual_seed(0)
    directory = random_weights(network())
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return lambda **options: WhisperEncoder(directory, **options)


@pytest.fixture
def effects(random_weights):
    torch.manual_seed(0)
    directory = random_weights(SoundEffectsNetwork())
    return lambda **options: SoundEffectsEncoder(directory, **options)


def test_whispers_tokens_are_those_of_transformers(whisper):
    encoder = whisper(pool=1)
    mels = torch.randn(2, 80, 200)
    with torch.no_grad():
        expected = encoder.network(mels).last_hidden_state
        torch.testing.assert_close(encoder.encode(mels), expected, rtol=1e-4, atol=1e-5)


def test_whisper_averages_neighbouring_tokens(whisper):
    sounds = [sound(8000, 16_000)]
    [every], [pooled] = whisper(pool=1)(sounds), whisper(pool=10)(sounds)
    assert every.shape == (1, 25, 16)
    assert pooled.shape == (1, 3, 16)
    torch.testing.assert_close(pooled[0, 1], every[0, 10:20].mean(0))
    torch.testing.assert_close(pooled[0, 2], every[0, 20:].mean(0))


@pytest.mark.parametrize("samples", [1, 399, 400, 32_000])
def test_whisper_takes_short_sounds(whisper, samples):
    [features] = whisper(pool=5)([sound(samples, 16_000)])
    assert features.isfinite().all()
    assert features.shape[1] == max(1, -(-samples // 1600))


def test_sounds_of_different_lengths_keep_their_order(whisper, effects):
    for encoder, rate in ((whisper(), 16_000), (effects(), 44_100)):
        sounds = [sound(n, rate, seed) for seed, n in enumerate((9000, 9000, 20_000, 9000))]
        together = encoder(sounds)
        for medium, features in zip(sounds, together, strict=True):
            torch.testing.assert_close(encoder([medium])[0], features, rtol=1e-4, atol=1e-4)
            assert not features.requires_grad
        assert encoder([]) == []


def test_whisper_refuses_sounds_beyond_its_positions(whisper):
    with pytest.raises(MediaError, match=r"at most 2 s long, got 2\.5 s; lower"):
        whisper()([sound(40_000, 16_000)])


def test_another_rate_is_refused(whisper, effects):
    with pytest.raises(MediaError, match="16000 Hz, got 8000 Hz; set the decoder's rate to 16000"):
        whisper()([sound(800, 8000)])
    with pytest.raises(MediaError, match="44100 Hz, got 8000 Hz"):
        effects()([sound(800, 8000)])


def test_options_must_be_in_range(whisper, effects):
    with pytest.raises(RecipeError, match="pool must be positive, got 0"):
        whisper(pool=0)
    with pytest.raises(RecipeError, match="bands must divide 12, got 5"):
        effects(bands=5)


def test_bands_divide_the_frequencies(effects):
    [one], [three] = (
        effects(bands=1)([sound(44_100, 44_100)]),
        effects(bands=3)([sound(44_100, 44_100)]),
    )
    assert one.shape == (1, 5, 512)
    assert three.shape == (1, 15, 512)
    torch.testing.assert_close(three.unflatten(1, (5, 3)).mean(2), one)


def test_the_fingerprints_name_every_option(whisper, effects):
    assert whisper(pool=2).fingerprint.startswith("whisper pool=2 weights=")
    assert effects(bands=2).fingerprint.startswith("sound-effects bands=2 weights=")


@pytest.mark.slow
def test_the_real_weights_give_the_recorded_features():
    time = np.arange(44_100) / 44_100
    tone = (np.sin(2 * np.pi * 440 * time) * np.exp(-3 * time) / 2).astype(np.float32)
    whisper = WhisperEncoder(weights_dir("whisper-tiny-en"))
    effects = SoundEffectsEncoder(weights_dir("aisfx"), bands=1)
    [speech] = whisper([Waveform(tone[:16_000], 16_000)])
    [effect] = effects([Waveform(tone, 44_100)])
    found = [speech[0, 0].amax(), speech.std(), effect.mean(), effect.amax()]
    golden = torch.tensor(GOLDEN)
    torch.testing.assert_close(torch.stack(found), golden, rtol=1e-3, atol=1e-3)
