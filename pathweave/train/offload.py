"""Offloading of the optimiser: its moments wait on the CPU between two steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def moments_at_hand(optimizer: torch.optim.Optimizer, offloaded: bool) -> Iterator[None]:
    """Bring moments to where their parameters are for the time of a step.

    The step is the same, to the last bit: they are copied, and nothing is computed on the CPU.

    Args:
        optimizer: The optimiser.
        offloaded: Whether they are on the CPU; otherwise nothing is done.
    """
    if not offloaded:
        yield
        return
    for parameter, state in optimizer.state.items():
        state |= {name: value.to(parameter.device) for name, value in state.items()}
    yield
    put_away(optimizer)


def put_away(optimizer: torch.optim.Optimizer) -> None:
    """Move all moments to the CPU."""
    for state in optimizer.state.values():
        state |= {name: value.to("cpu") for name, value in state.items()}
