import pytest
import torch

from pathweave.nn import Adapter, InAdapter


def random_adapter(in_dim=6, out_dim=4, rank=2, seed=0):
    torch.manual_seed(seed)
    adapter = Adapter(in_dim, out_dim, rank)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    return adapter


def test_a_new_adapter_is_the_zero_map_but_can_learn():
    torch.manual_seed(0)
    adapter = Adapter(6, 4, 2)
    y = adapter(torch.randn(3, 5, 6))
    assert y.shape == (3, 5, 4)
    assert not y.any()
    y.sum().backward()
    assert adapter.up.weight.grad.any()


def test_the_formula_with_and_without_an_in_adapter():
    adapter, inner = random_adapter(), InAdapter(2, "normal")
    torch.nn.init.normal_(inner.bias)
    x = torch.randn(6)
    down = adapter.down.weight @ x + adapter.down.bias
    plain = adapter.scale * (adapter.up.weight @ down + adapter.up.bias)
    crossed = inner.weight @ down + inner.bias
    torch.testing.assert_close(adapter(x), plain)
    torch.testing.assert_close(
        adapter(x, inner), adapter.scale * (adapter.up.weight @ crossed + adapter.up.bias)
    )


def test_in_adapters_start_as_they_are_told():
    torch.manual_seed(0)
    h = torch.randn(5, 16)
    assert torch.equal(InAdapter(16, "identity")(h), h)
    assert not InAdapter(16, "zero")(h).any()
    normal = InAdapter(64, "normal")
    assert 0.018 < normal.weight.std() < 0.022
    assert not normal.bias.any()


def test_an_identity_in_adapter_leaves_the_adapter_as_it_is():
    adapter, x = random_adapter(), torch.randn(3, 6)
    assert torch.equal(adapter(x, InAdapter(2, "identity")), adapter(x))


@pytest.mark.parametrize("rank", [0, 5])
def test_the_rank_must_fit(rank):
    with pytest.raises(ValueError, match=rf"rank must be in \[1, .*=4\], got {rank}"):
        Adapter(6, 4, rank)


@pytest.mark.unchecked  # the type check of the other tests would come first
def test_an_unknown_initial_value_is_refused():
    with pytest.raises(ValueError, match=r"init must be one of .*'zero'.*, got 'ones'"):
        InAdapter(2, "ones")
