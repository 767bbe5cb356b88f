"""Update clipping against the algorithm as it is published (arXiv 2304.13013, algorithm 2)."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pathweave.methods.settings import Training
from pathweave.train.schedule import make_optimizer, set_learning_rate
from pathweave.train.update_limit import limited_step

LR, BETAS, DECAY, EPS = 0.1, (0.9, 0.99), 0.2, 1e-8


def published(start, gradients, max_rms=1.0):
    """One matrix after steps of StableAdamW, written out."""
    value, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step, gradient in enumerate(gradients, start=1):
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        usual = square / (1 - BETAS[1] ** step)
        rms = (gradient**2 / usual.clamp(min=EPS**2)).mean().sqrt()
        rate = LR / max(1.0, rms.item() / max_rms)
        value = value * (1 - rate * DECAY)
        value = value - rate * (mean / (1 - BETAS[0] ** step)) / (usual.sqrt() + EPS)
    return value


def trained(start, gradients, max_rms):
    """The same by the optimiser of a stage."""
    training = Training(
        steps=len(gradients),
        lr=LR,
        warmup=0,
        min_lr_share=1.0,
        weight_decay=DECAY,
        betas=BETAS,
        max_update_rms=max_rms,
    )
    layer = nn.Linear(start.shape[1], start.shape[0])
    layer.weight.data.copy_(start)
    optimizer = make_optimizer(nn.ModuleDict({"path": layer}), training)
    for step, gradient in enumerate(gradients):
        set_learning_rate(optimizer, step, training)
        layer.weight.grad = gradient.clone()
        limited_step(optimizer, max_rms)
    return layer.weight.detach()


@given(
    scales=st.lists(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3]), min_size=1, max_size=8),
    max_rms=st.sampled_from([0.5, 1.0, 2.0]),
    seed=st.integers(0, 9),
)
def test_it_is_the_published_algorithm(scales, max_rms, seed):
    torch.manual_seed(seed)
    start = torch.randn(3, 4)
    gradients = [torch.randn(3, 4) * scale for scale in scales]
    expected = published(start, gradients, max_rms)
    torch.testing.assert_close(trained(start, gradients, max_rms), expected, rtol=1e-4, atol=1e-5)


def test_a_tensor_is_thrown_by_a_sudden_gradient_only_without_the_limit():
    quiet, loud = torch.full((2, 2), 1e-3), torch.ones(2, 2)
    start = torch.zeros(2, 2)
    gradients = [quiet] * 20 + [loud] * 4
    before = trained(start, gradients[:20], 1.0)
    moved = [(trained(start, gradients, limit) - before).abs().max() for limit in (1.0, None)]
    # Four steps at the usual size of an update, the rate, and no further.
    assert moved[0] <= 4 * LR
    assert moved[1] > 2 * moved[0]


def test_steady_gradients_are_not_limited():
    start, gradients = torch.ones(2, 3), [torch.full((2, 3), 0.5)] * 6
    assert torch.equal(trained(start, gradients, 1.001), trained(start, gradients, None))


def test_a_tensor_without_a_gradient_is_left_out():
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(nn.ModuleDict({"path": layer}), Training(max_update_rms=1))
    weight, bias = layer.weight.clone(), layer.bias.clone()
    limited_step(optimizer, 1.0)
    assert torch.equal(layer.bias, bias)
    layer.bias.grad = torch.ones(2)
    limited_step(optimizer, 1.0)
    assert torch.equal(layer.weight, weight)
    assert not torch.equal(layer.bias, bias)


def test_each_tensor_of_a_group_is_limited_by_its_own_gradients():
    quiet, loud = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    both = nn.ModuleDict({"path": nn.ModuleList([quiet, loud])})
    optimizer = make_optimizer(both, Training(warmup=0, weight_decay=0.0))
    assert len(optimizer.param_groups) == 1
    for layer in (quiet, loud):
        torch.nn.init.ones_(layer.weight)
    for step in range(21):
        quiet.weight.grad = torch.ones(2, 2)
        loud.weight.grad = torch.full((2, 2), 1e-3 if step < 20 else 1.0)
        before = [layer.weight.clone() for layer in (quiet, loud)]
        limited_step(optimizer, 0.5)
    moved = [(a - layer.weight) for a, layer in zip(before, (quiet, loud), strict=True)]
    # Steady gradients have an RMS of 1, which is twice the limit; the rate is Training's.
    torch.testing.assert_close(moved[0], torch.full((2, 2), 0.5 * optimizer.param_groups[0]["lr"]))
    assert (moved[1] < moved[0]).all()
