"""Adapters at the projector: each stage file lists those it sums; a path holds what it adds.

As designed, stage k sums the adapters 0..k, and path k adds the k-th. A released stage may leave an
earlier adapter out or train it again. Then its path adds its own adapter, the new version, and the
old one with a minus sign: the sum over the paths is again the sum that the stage computes. These
terms are one adapter, in which the constant of each has a bottleneck channel of its own, so that
nothing of them is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathweave.errors import PathError
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.released.checkpoint import Checkpoint, same
from pathweave.released.layout import PROJECTOR_DEFECT

AdapterState = Mapping[str, Tensor]
Term = tuple[int, int]
"""Sign (1 or -1) and position in the stage's list."""


@dataclass(frozen=True)
class ProjectorDelta:
    """What a stage adds at the projector.

    Attributes:
        adapter: The adapter of its path.
        terms: What it is made of; one term is the stage's own adapter as it is.
    """

    adapter: AdapterState
    terms: list[Term]

    @property
    def rank(self) -> int:
        """Width of its bottleneck."""
        return len(self.adapter["down.weight"])


def projector_deltas(stages: Sequence[Checkpoint]) -> list[ProjectorDelta]:
    """Return what each stage adds at the projector.

    Args:
        stages: All stages with adapters, in order.

    Raises:
        PathError: If a stage's list differs from that of the stage before, which it started from,
            where the released code would not have changed it.
    """
    deltas: list[ProjectorDelta] = []
    before: list[AdapterState] = []
    summed: dict[int, AdapterState] = {}
    for position, stage in enumerate(stages):
        now: list[AdapterState] = [stage.adapter(PROJECTOR_SITE, i) for i in range(position + 1)]
        for index in retrained(now, before):
            # A stage with the defect trains again all that it does not leave out, and no other.
            if index in PROJECTOR_DEFECT.get(stage.stage.prefix, (index,)):
                raise PathError(
                    f"{stage.file}: {stage.stage.key(f'llmProj_adapter_list.{index}')} must equal "
                    f"that of {stages[position - 1].file}, got other values; give files of one run"
                )
        wanted = {i: a for i, a in enumerate(now) if i not in stage.stage.projector_skips}
        deltas.append(projector_delta(wanted, summed))
        before, summed = now, wanted
    return deltas


def retrained(now: Sequence[AdapterState], before: Sequence[AdapterState]) -> list[int]:
    """Return the positions at which a stage's list differs from that of the stage before."""
    return [i for i, adapter in enumerate(before) if not _equal(now[i], adapter)]


def projector_delta(
    wanted: Mapping[int, AdapterState], summed: Mapping[int, AdapterState]
) -> ProjectorDelta:
    """Return what a stage adds.

    Args:
        wanted: What it sums, by position in its list; its own is the last.
        summed: What the stage before sums.
    """

    def has(adapters: Mapping[int, AdapterState], index: int, adapter: AdapterState) -> bool:
        # A map that is zero, as one that was never trained, may be taken for a term of any sum.
        is_zero = not adapter["scale"].any() or not any(
            adapter[f"up.{kind}"].any() for kind in ("weight", "bias")
        )
        return is_zero or (index in adapters and _equal(adapters[index], adapter))

    # wanted - summed, term by term: its own adapter, what it sums anew, less what it sums no more.
    # An adapter that was trained again differs from the old one, so it is among both.
    own = max(wanted)
    new = [i for i, adapter in wanted.items() if i != own and not has(summed, i, adapter)]
    old = [i for i, adapter in summed.items() if not has(wanted, i, adapter)]
    terms = [(1, own), *((1, i) for i in new), *((-1, i) for i in old)]
    if len(terms) == 1:
        # As designed: the adapter as it is, with its own scale and biases.
        return ProjectorDelta(wanted[own], terms)
    parts = [_signed(sign, (wanted if sign > 0 else summed)[index]) for sign, index in terms]
    # Side by side in one bottleneck, the terms are summed by the product with the joined ``up``.
    axes = {"down.weight": 0, "down.bias": 0, "up.weight": 1}
    joined = {name: torch.cat([p[name] for p in parts], dim=axis) for name, axis in axes.items()}
    constants = {"scale": torch.ones(1), "up.bias": torch.zeros(len(joined["up.weight"]))}
    return ProjectorDelta({**constants, **joined}, terms)


def _signed(sign: int, adapter: AdapterState) -> AdapterState:
    """Return ``sign * adapter`` with scale 1 and its constant as one more bottleneck channel.

    The input of that channel is always 1 (no weight, bias 1), so its column of ``up`` is a bias.
    Biases that were added up instead could not be told apart again.
    """
    down, up = adapter["down.weight"].float(), adapter["up.weight"].float()
    columns = torch.cat([up, adapter["up.bias"].float()[:, None]], dim=1)
    return {
        "down.weight": torch.cat([down, torch.zeros_like(down[:1])]),
        "down.bias": torch.cat([adapter["down.bias"].float(), torch.ones(1)]),
        "up.weight": sign * (adapter["scale"].float() * columns),
    }


def projector_adapters(
    own: AdapterState, terms: Sequence[Term], before: Sequence[AdapterState]
) -> list[AdapterState]:
    """Return the list of a stage's file: the inverse of ``projector_deltas``.

    Args:
        own: The adapter of the path.
        terms: What it is made of.
        before: The list of the stage before.
    """
    if len(terms) == 1:
        return [*before, own]
    now = dict(enumerate(before))
    # Every term takes as many channels of the bottleneck, the last of them for its constant.
    width = len(own["down.weight"]) // len(terms)
    for place, (sign, index) in enumerate(terms):
        if sign < 0:  # what the stage before sums stands in the list already, or is replaced
            continue
        constant = (place + 1) * width - 1
        channels = slice(place * width, constant)
        part = {
            "scale": torch.ones(1),
            "down.weight": own["down.weight"][channels],
            "down.bias": own["down.bias"][channels],
            "up.weight": own["up.weight"][:, channels],
            "up.bias": own["up.weight"][:, constant],
        }
        # A term may be the adapter of the list, which only the stage before had left out. Then the
        # list keeps it as it is, with its own scale.
        left_out = index in now and (-1, index) not in terms
        if not (left_out and _equal(_signed(1, part), _signed(1, now[index]))):
            now[index] = part
    return [now[index] for index in sorted(now)]


def _equal(a: AdapterState, b: AdapterState) -> bool:
    return all(same(a[name], b[name]) for name in a)
