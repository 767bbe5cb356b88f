import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.encoders.kaldi import filter_bank
from tests.encoders.golden import arrays


@pytest.mark.parametrize("library", ["knf", "torchaudio"])
def test_two_libraries_give_the_same_energies(library):
    stored = arrays("fbank")
    found = filter_bank(stored["waveform"][None])[0]
    torch.testing.assert_close(found, stored[f"fbank_{library}"], atol=1e-3, rtol=0)
    normalised = (found - 15.41663) / (2 * 6.55582)
    torch.testing.assert_close(normalised, stored[f"normalised_{library}"], atol=1e-4, rtol=0)


def slow_filter_bank(samples, num_mels):
    """The rule, written for one sound in loops and float64."""

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    low, high = mel(20), mel(8000)
    step = (high - low) / (num_mels + 1)
    rows = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = samples[start : start + 400].astype(np.float64) * 32768
        frame -= frame.mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(400)])
        frame *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        row = []
        for band in range(num_mels):
            left = low + band * step
            weights = [
                max(
                    0,
                    min((mel(k * 31.25) - left) / step, (left + 2 * step - mel(k * 31.25)) / step),
                )
                for k in range(257)
            ]
            row.append(math.log(max(np.dot(weights, power), 2**-23)))
        rows.append(row)
    return np.array(rows)


def test_the_rule_written_in_loops():
    samples = np.random.default_rng(0).normal(size=720).astype(np.float32) / 10
    found = filter_bank(torch.tensor(samples)[None], 20)[0].numpy()
    np.testing.assert_allclose(found, slow_filter_bank(samples, 20), atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(400, 3000), st.integers(1, 3))
def test_whole_frames_of_each_sound_by_itself(length, batch):
    samples = torch.randn(batch, length, generator=torch.Generator().manual_seed(length)) / 10
    together = filter_bank(samples)
    assert together.shape == (batch, 1 + (length - 400) // 160, 128)
    torch.testing.assert_close(filter_bank(samples[-1:])[0], together[-1], atol=1e-3, rtol=1e-4)


def test_silence_is_the_smallest_positive_step():
    energies = filter_bank(torch.full((1, 400), 0.5))
    assert energies.unique().tolist() == pytest.approx([math.log(2**-23)])
