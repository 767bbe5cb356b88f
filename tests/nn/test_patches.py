"""Patch encoder: order, level and scale reach the tokens, and the batch does not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.nn.patches import PatchEncoder, PatchSpec


def encoder(channels=2, **spec):
    torch.manual_seed(0)
    built = PatchEncoder(
        PatchSpec(**{"length": 4, "stride": 2, "width": 8, "layers": 2, **spec}), channels
    )
    return built.eval()


def window(length, channels=2, seed=0, present=True):
    values = torch.randn(length, channels, generator=torch.Generator().manual_seed(seed))
    return torch.cat([values, torch.full_like(values, float(present))], dim=1)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    patch=st.integers(1, 9),
    stride=st.integers(1, 9),
)
@torch.no_grad()
def test_a_window_gives_what_it_gives_alone(lengths, patch, stride):
    encode = encoder(length=patch, stride=stride)
    windows = [window(length, seed=i) for i, length in enumerate(lengths)]
    for x, tokens in zip(windows, encode(windows), strict=True):
        [alone] = encode([x])
        assert tokens.shape == alone.shape
        torch.testing.assert_close(tokens, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("length", "patches"), [(1, 1), (8, 5), (9, 5), (100, 51)])
def test_there_is_a_patch_every_stride(length, patches):
    assert encoder()([window(length)])[0].shape == (patches, 8)


@torch.no_grad()
def test_shuffling_a_recording_in_time_changes_its_tokens():
    encode, x = encoder(), window(30)
    [before], [after] = encode([x]), encode([x[torch.randperm(30)]])
    assert (before - after).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize(("factor", "offset"), [(3.0, 0.0), (1.0, 5.0)])
def test_level_and_scale_are_told_and_nothing_else_changes(factor, offset):
    encode, x = encoder(), window(30)
    other = x.clone()
    other[:, :2] = other[:, :2] * factor + offset
    [before], [after] = encode([x]), encode([other])
    assert (before - after).abs().max() > 0.1
    encode.statistics.weight.zero_()
    [before], [after] = encode([x]), encode([other])
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_statistics_of_the_training_data_make_units_meaningless():
    """Volts or millivolts: measured against its own data, a recording gives the same tokens."""
    train = [window(50, seed=i) * (1 + i) for i in range(4)]
    for x in train:
        x[:, 2:] = 1
    volts, milli = encoder(), encoder()
    volts.measure(train)
    scaled = [torch.cat([1000 * x[:, :2], x[:, 2:]], dim=1) for x in train]
    milli.measure(scaled)
    for x, y in zip(volts(train), milli(scaled), strict=True):
        torch.testing.assert_close(x, y, atol=1e-3, rtol=1e-3)
    levels = torch.stack([x[:, :2].mean(0) for x in train])
    torch.testing.assert_close(volts.level_mean, levels.mean(0))


@torch.no_grad()
def test_what_is_missing_does_not_count():
    encode, x = encoder(), window(20)
    x[5, 0], x[5, 2] = 0.0, 0.0  # not there
    garbage = x.clone()
    garbage[5, 0] = 999.0
    torch.testing.assert_close(encode([x])[0], encode([garbage])[0])
    there = x[torch.arange(20) != 5, 0]
    told = {}
    encode.statistics.register_forward_pre_hook(lambda _, given: told.update(given=given[0]))
    encode([x])
    assert told["given"][0, 0].item() == pytest.approx(there.mean().item(), abs=1e-5)
    assert told["given"][0, 2].item() == pytest.approx(
        there.std(correction=0).log().item(), abs=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 7.5, -1e6])
def test_constant_and_broken_channels_stay_finite(value):
    encode = encoder()
    encode.measure([window(20)])
    x = window(20)
    x[:, 0] = value
    [tokens] = encode([x])
    assert tokens.isfinite().all()
    assert tokens.abs().max() < 100
    encode.measure([x])
    assert encode([x])[0].isfinite().all()
    assert encode([window(20, present=False)])[0].isfinite().all()


def test_everything_is_trained():
    encode = encoder().train()
    encode([window(20)])[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encode.parameters())


def test_what_the_order_alone_tells_is_learnt():
    """Recordings that rise or fall, at any level and scale: shuffled in time, they are alike."""
    torch.manual_seed(0)
    falls = torch.arange(32) % 2
    ramps = torch.linspace(-1, 1, 25)[:, None] * (1 - 2 * falls)[:, None, None]
    values = ramps * torch.rand(32, 1, 2) + torch.randn(32, 1, 2) + 0.1 * torch.randn(32, 25, 2)
    windows = [*torch.cat([values, torch.ones_like(values)], dim=2)]
    encode, head = encoder().train(), torch.nn.Linear(8, 2)
    encode.measure(windows)
    optimizer = torch.optim.Adam([*encode.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(40):
        logits = torch.stack([head(tokens.mean(0)) for tokens in encode(windows)])
        torch.nn.functional.cross_entropy(logits, falls).backward()
        optimizer.step()
        optimizer.zero_grad()
    encode.eval()
    answers = [head(tokens.mean(0)).argmax() for tokens in encode(windows)]
    assert torch.stack(answers).eq(falls).float().mean() > 0.9
