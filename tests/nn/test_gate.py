import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.nn import Gate

KINDS = ("softmax", "noisy_softmax", "top_k")


def random_gate(num_experts, kind, k=2, seed=0):
    gate = Gate(7, num_experts, kind, k)
    generator = torch.Generator().manual_seed(seed)
    for parameter in gate.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return gate


@settings(max_examples=20, deadline=None)
@given(
    num_experts=st.integers(1, 6),
    kind=st.sampled_from(KINDS),
    k=st.integers(1, 7),
    training=st.booleans(),
    seed=st.integers(0, 999),
)
def test_weights_sum_to_one_and_top_k_keeps_k(num_experts, kind, k, training, seed):
    gate = random_gate(num_experts, kind, k, seed).train(training)
    x = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(seed + 1))
    weights = gate(x)
    assert weights.shape == (3, 4, num_experts)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))
    if kind == "top_k":
        kept = min(k, num_experts)
        assert ((weights > 0).sum(-1) <= kept).all()
        largest = (x @ gate.weight).topk(kept).indices
        torch.testing.assert_close(weights.gather(-1, largest).sum(-1), torch.ones(3, 4))


def test_top_k_weighs_what_it_keeps_as_softmax_would():
    gate, x = random_gate(4, "top_k", k=2), torch.randn(5, 7)
    whole = random_gate(4, "softmax")(x)
    kept = whole * (gate(x) > 0)
    torch.testing.assert_close(gate(x), kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_gate_weighs_all_experts_alike(kind):
    weights = Gate(7, 4, kind, k=4).eval()(torch.randn(5, 7))
    torch.testing.assert_close(weights, torch.full((5, 4), 0.25))


def test_noise_comes_only_in_training_and_only_with_the_noisy_kind():
    x = torch.randn(5, 7)
    for kind in KINDS:
        gate = random_gate(4, kind)
        gate.eval()
        assert torch.equal(gate(x), gate(x))
        gate.train()
        assert torch.equal(gate(x), gate(x)) == (kind != "noisy_softmax")
        assert len(gate.columns) == 1 + (kind == "noisy_softmax")


def test_the_noise_learns():
    gate = random_gate(4, "noisy_softmax").train()
    gate(torch.randn(5, 7)).square().sum().backward()
    assert gate.noise_weight.grad.any()


def test_bfloat16_is_weighed_in_float32_and_given_back_as_bfloat16():
    # Large logits close together: a softmax in bfloat16 would be off by several percent.
    logits = (60 + torch.arange(5) / 4).bfloat16()
    weights = Gate(7, 5).mix(logits)
    assert weights.dtype == torch.bfloat16
    assert torch.equal(weights, logits.float().softmax(-1).bfloat16())


@pytest.mark.unchecked  # the type check of the other tests would come first
def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"gate kind must be one of .*'top_k'\), got 'soft'"):
        Gate(7, 2, "soft")


@pytest.mark.parametrize(("num_experts", "k"), [(0, 1), (2, 0)])
def test_there_must_be_experts(num_experts, k):
    with pytest.raises(ValueError, match=f"must be at least 1, got {num_experts} and {k}"):
        Gate(7, num_experts, "top_k", k)
