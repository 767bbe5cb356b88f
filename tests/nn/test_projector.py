import pytest
import torch

from pathweave.nn import Experts, Projector, Route


def projector(scale=None):
    torch.manual_seed(0)
    return Projector(8, 32, scale)


def test_without_a_scale_it_is_the_linear_map():
    module, x = projector(), torch.randn(2, 3, 8)
    assert torch.equal(module(x, Route()), module.linear.host(x))


@pytest.mark.parametrize("loudness", [0.1, 100.0])
def test_a_scale_is_the_spread_of_every_token(loudness):
    tokens = projector(scale=0.25)(torch.randn(2, 3, 8) * loudness, Route())
    torch.testing.assert_close(
        tokens.std(-1, correction=0), torch.full((2, 3), 0.25), rtol=0.01, atol=0
    )
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 3), rtol=0, atol=1e-6)


def test_a_path_corrects_the_map_before_it_is_scaled():
    module, x = projector(scale=0.25), torch.randn(2, 3, 8)
    experts = Experts(8, 32, rank=2)
    torch.nn.init.normal_(experts.adapter.up.weight)
    mixture = experts.fuse([])
    corrected = module(x, Route((({module.linear.site: mixture}, 2),)))
    expected = module.linear.host(x) + mixture(x)
    centred = expected - expected.mean(-1, keepdim=True)
    scaled = 0.25 * centred / centred.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(corrected, scaled, atol=1e-4, rtol=1e-4)
