import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from pathweave.encoders import sound_effects
from pathweave.encoders.spectrogram import (
    htk_frequency,
    htk_mel,
    slaney_frequency,
    slaney_mel,
    triangles,
)
from pathweave.encoders.whisper import log_mel


def test_both_scales_invert():
    frequencies = torch.tensor([0.0, 200.0, 999.0, 1000.0, 1001.0, 8000.0])
    for there, back in ((htk_mel, htk_frequency), (slaney_mel, slaney_frequency)):
        torch.testing.assert_close(back(there(frequencies)), frequencies, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(slaney_mel(frequencies[3:4]), torch.tensor([15.0]))


def test_triangles_peak_at_their_middle_corner():
    filters = triangles(torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.arange(5.0))
    assert filters.tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 0.5, 0]]


def test_whispers_spectrogram_is_that_of_transformers():
    samples = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    samples[4000:] = 0
    extract = WhisperFeatureExtractor(feature_size=80)
    expected = extract(
        samples,
        sampling_rate=16_000,
        padding="max_length",
        max_length=8000,
        return_tensors="pt",
    ).input_features
    found = log_mel(torch.tensor(samples)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_tone_is_loudest_in_its_band():
    time = torch.arange(16_000) / 44_100
    low, high = (
        sound_effects.log_mel(torch.sin(6.2832 * f * time)[None])[0, 8] for f in (200, 9e3)
    )
    assert low.argmax() < 20 < 60 < high.argmax()
    assert 0.3 < high.max() < 1


def test_loudness_does_not_matter_to_the_effects_spectrogram():
    samples = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    loud, quiet = sound_effects.log_mel(samples), sound_effects.log_mel(samples / 8)
    torch.testing.assert_close(loud, quiet)
    assert sound_effects.log_mel(torch.zeros(1, 9000)).abs().max() == 0
