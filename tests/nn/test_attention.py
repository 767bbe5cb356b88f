import pytest
import torch
from torch.nn import functional as F

from pathweave.nn import Attention, Route


def attention(dim=8, width=6, heads=2, dropout=0.0):
    torch.manual_seed(0)
    return Attention(dim, width, heads, dropout, 1e-12, site="here").eval()


def plain(block, x, context, mask=None):
    """Head after head, with the softmax written out."""
    q, k, v = block.query.host(x), block.key.host(context), block.value.host(context)
    merged = []
    for head in torch.arange(x.shape[-1]).chunk(block.num_heads):
        scores = q[..., head] @ k[..., head].transpose(1, 2) / len(head) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
        merged.append(scores.softmax(-1) @ v[..., head])
    y = block.output.host(torch.cat(merged, dim=-1))
    return F.layer_norm(y + x, x.shape[-1:], block.norm.weight, block.norm.bias, 1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_formula(masked):
    block, x, context = attention(), torch.randn(3, 4, 8), torch.randn(3, 5, 6)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]]) if masked else None
    torch.testing.assert_close(block(x, context, Route(), mask), plain(block, x, context, mask))


def test_masked_context_does_not_matter():
    block, x, context = attention(), torch.randn(2, 4, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    other = context.clone()
    other[:, 3:] = 1e3
    assert torch.equal(block(x, context, Route(), mask), block(x, other, Route(), mask))
    torch.testing.assert_close(
        block(x, context, Route(), mask), block(x, context[:, :3], Route()), atol=1e-5, rtol=1e-5
    )


def test_dropout_is_for_training_alone():
    block, x = attention(width=8, dropout=0.5), torch.randn(2, 4, 8)
    assert torch.equal(block(x, x, Route()), block(x, x, Route()))
    block.train()
    assert not torch.equal(block(x, x, Route()), block(x, x, Route()))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads must divide dim=8, got 3"):
        attention(heads=3)
