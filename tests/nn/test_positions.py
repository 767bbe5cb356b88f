"""Positions: what has an order keeps it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.nn.positions import LEARNED, Positions


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
@pytest.mark.parametrize("columns", [None, 3])
@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 50), width=st.integers(4, 9))
def test_tokens_of_any_number_have_each_a_place_of_its_own(kind, columns, tokens, width):
    torch.manual_seed(0)
    positions = Positions(kind, width, columns)
    added = positions(torch.zeros(tokens, width)).detach()
    assert added.shape == (tokens, width)
    distance = torch.cdist(added, added) + torch.eye(tokens)
    assert distance.min() > 1e-5


def test_sinusoids_count_from_the_beginning():
    """So the first tokens of a longer sequence have the places that they have alone."""
    positions = Positions("sinusoidal", 8)
    x = torch.randn(20, 8)
    assert torch.equal(positions(x)[:7], positions(x[:7]))
    first = [0, 0, 0, 0, 1, 1, 1, 1]
    assert positions(torch.zeros(1, 8)).tolist() == [first]
    angle = torch.tensor([5.0, 0.5, 0.05, 0.005])
    expected = torch.cat([angle.sin(), angle.cos()])
    torch.testing.assert_close(positions(torch.zeros(6, 8))[5], expected)


def test_a_learned_table_is_stretched_over_the_sequence():
    positions = Positions("learned", 6)
    whole = positions(torch.zeros(LEARNED, 6))
    torch.testing.assert_close(whole, positions.rows)
    for length in (2, 7, 100):
        stretched = positions(torch.zeros(length, 6))
        torch.testing.assert_close(stretched[[0, -1]], positions.rows[[0, -1]])
    half = positions(torch.zeros(2 * LEARNED - 1, 6))
    torch.testing.assert_close(half[1], positions.rows[:2].mean(0))


def test_a_grid_has_places_along_both_axes():
    sinusoidal = Positions("sinusoidal", 8, columns=4)(torch.zeros(12, 8)).reshape(3, 4, 8)
    assert torch.equal(sinusoidal[:, 0, :4], sinusoidal[:, 3, :4])  # the row
    assert torch.equal(sinusoidal[0, :, 4:], sinusoidal[2, :, 4:])  # the column
    assert not torch.equal(sinusoidal[0, 1], sinusoidal[1, 0])
    learned = Positions("learned", 8, columns=4)
    added = learned(torch.zeros(12, 8)).reshape(3, 4, 8)
    torch.testing.assert_close(
        added[2] - added[0], (learned.rows[-1] - learned.rows[0]).expand(4, 8)
    )


def test_how_strongly_sinusoids_count_is_learnt():
    positions = Positions("sinusoidal", 8)
    assert sum(p.numel() for p in positions.parameters()) == 1
    positions(torch.zeros(3, 8)).sum().backward()
    assert positions.scale.grad is not None
