"""Kernel encoder: what recordings look like reaches the token, and neither units nor the batch."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.nn.kernels import KernelEncoder, KernelSpec
from tests.nn.test_patches import window


def encoder(channels=2, train=None, **spec):
    torch.manual_seed(0)
    built = KernelEncoder(KernelSpec(**{"reach": 20, "biases": 2, "width": 8, **spec}), channels)
    built.measure(train or [window(40, channels, seed) for seed in range(6)])
    return built.eval()


def test_kernels_are_dilated_until_they_span_the_reach():
    assert [KernelSpec(reach).dilations for reach in (1, 9, 17, 32, 33)] == [
        (1,),
        (1,),
        (1, 2),
        (1, 2),
        (1, 2, 4),
    ]


@torch.no_grad()
def test_a_feature_is_the_share_of_time_in_which_a_kernel_exceeds_a_bias():
    encode, x = encoder(channels=1), window(30, 1, seed=9)
    values = (x[:, 0] - x[:, 0].mean()) / (encode.scale_mean.exp() + encode.least)
    expected = []
    for dilation, biases in zip((1, 2), encode.biases, strict=True):
        padded = np.pad(values.numpy(), 4 * dilation)
        steps = [padded[i * dilation : i * dilation + 30] for i in range(9)]
        outputs = [
            3 * sum(steps[place] for place in places) - sum(steps)
            for places in combinations(range(9), 3)
        ]
        for bias in biases.T:
            expected += [(y > b).mean() for y, b in zip(outputs, bias.numpy(), strict=True)]
    [features], _ = encode._features([x])
    np.testing.assert_allclose(features.numpy(), np.array(expected), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    channels=st.integers(1, 12),
)
@torch.no_grad()
def test_a_window_of_any_length_gives_what_it_gives_alone(lengths, channels):
    encode = encoder(channels)
    windows = [window(length, channels, seed=i) for i, length in enumerate(lengths)]
    for x, token in zip(windows, encode(windows), strict=True):
        assert token.shape == (1, 8)
        [alone] = encode([x])
        torch.testing.assert_close(token, alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_level_and_scale_are_told_and_a_level_changes_nothing_else():
    encode, x = encoder(), window(30)
    higher = x.clone()
    higher[:, :2] += 5
    before, after = (encode([y])[0] for y in (x, higher))
    assert (before - after).abs().max() > 0.1
    encode.statistics.weight.zero_()
    before, after = (encode([y])[0] for y in (x, higher))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_units_of_the_training_data_make_no_difference():
    train = [window(40, seed=i) for i in range(4)]
    scaled = [torch.cat([1000 * x[:, :2], x[:, 2:]], dim=1) for x in train]
    for x, y in zip(encoder(train=train)(train), encoder(train=scaled)(scaled), strict=True):
        torch.testing.assert_close(x, y, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_features_of_the_training_data_are_standardised():
    train = [window(40, seed=i) for i in range(30)]
    encode = encoder(train=train)
    features, _ = encode.features(train)
    assert features.mean(0).abs().max() < 1e-4
    assert 0.5 < features.std(0).median() < 1.0


@torch.no_grad()
def test_what_is_missing_does_not_count():
    encode, x = encoder(), window(20)
    x[5, 0], x[5, 2] = 0.0, 0.0  # not there
    garbage = x.clone()
    garbage[5, 0] = 999.0
    torch.testing.assert_close(encode([x])[0], encode([garbage])[0])
    cut = torch.cat([x, torch.zeros(7, 4)])  # nothing after the end
    torch.testing.assert_close(encode([x])[0], encode([cut])[0])


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 0.1, 7.7, -1e6])
def test_flat_broken_and_empty_windows_give_finite_tokens_without_noise(value):
    encode, x = encoder(), window(20)
    x[:, 0] = value
    [token] = encode([x])
    assert token.isfinite().all()
    assert token.abs().max() < 100
    flat = torch.cat([torch.full((25, 2), value), torch.ones(25, 2)], dim=1)
    of_flat = encoder(train=[flat, flat])
    # Rounding leaves a flat signal's outputs just above or below 0; nothing may exceed a bias.
    assert of_flat._features([flat])[0].abs().max() == 0
    assert encode([window(20, present=False)])[0].isfinite().all()


def test_the_projection_is_trained_and_the_kernels_are_not():
    encode = encoder().train()
    names = {name for name, _ in encode.named_parameters()}
    assert names == {"project.weight", "project.bias", "statistics.weight", "statistics.bias"}
    encode([window(20)])[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encode.parameters())


@torch.no_grad()
def test_all_that_was_measured_is_saved():
    encode, other = encoder(), KernelEncoder(KernelSpec(20, 2, 8), 2).eval()
    other.load_state_dict(encode.state_dict())
    assert torch.equal(encode([window(20)])[0], other([window(20)])[0])


def test_few_recordings_are_enough_to_tell_what_a_short_pattern_looks_like():
    """A bump of one shape or its mirror image, anywhere in noise: 64 recordings to learn from."""
    random = torch.Generator().manual_seed(0)
    shape = torch.tensor([0.0, 1, 2, 3, 4, 5, 0, 0]) * 2
    windows, mirrored = [], torch.arange(128) % 2
    for flip in mirrored:
        x = torch.randn(60, generator=random)
        start = int(torch.randint(0, 52, (), generator=random))
        x[start : start + 8] += shape.flip(0) if flip else shape
        x = (x - x.mean()) / x.std(correction=0)  # level and scale are alike
        windows.append(torch.stack([x, torch.ones(60)], dim=1))
    encode = encoder(channels=1, train=windows[:64], biases=4, dropout=0.0)
    head = torch.nn.Linear(8, 2)
    optimizer = torch.optim.Adam([*encode.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(30):
        logits = head(torch.cat(encode(windows[:64])))
        torch.nn.functional.cross_entropy(logits, mirrored[:64]).backward()
        optimizer.step()
        optimizer.zero_grad()
    answers = head(torch.cat(encode(windows[64:]))).argmax(1)
    assert answers.eq(mirrored[64:]).float().mean() > 0.8
