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
from pathweave.released.names import PROJECTOR_DEFECT

Adapter = Mapping[str, Tensor]
Term = tuple[int, int]
"""Sign (1 or -1) and position in the stage's list."""


@dataclass(frozen=True)
class Share:
    """What a stage adds at the projector.

    Attributes:
        adapter: The adapter of its path.
        terms: What it is made of; one term is the stage's own adapter as it is.
    """

    adapter: Adapter
    terms: list[Term]

    @property
    def rank(self) -> int:
        """Width of its bottleneck."""
        return len(self.adapter["down.weight"])


def shares(stages: Sequence[Checkpoint]) -> list[Share]:
    """Return what each stage adds at the projector.

    Args:
        stages: All stages with adapters, in order.

    Raises:
        PathError: If a stage's list differs from that of the stage before, which it started from,
            where the released code would not have changed it.
    """
    made: list[Share] = []
    before: list[Adapter] = []
    summed: dict[int, Adapter] = {}
    for position, stage in enumerate(stages):
        now: list[Adapter] = [stage.adapter(PROJECTOR_SITE, i) for i in range(position + 1)]
        for index in retrained(now, before):
            if index in PROJECTOR_DEFECT.get(stage.stage.prefix, (index,)):
                raise PathError(
                    f"{stage.file}: {stage.stage.key(f'llmProj_adapter_list.{index}')} must equal "
                    f"that of {stages[position - 1].file}, got other values; give files of one run"
                )
        wanted = {i: a for i, a in enumerate(now) if i not in stage.stage.projector_skips}
        made.append(share(wanted, summed))
        before, summed = now, wanted
    return made


def retrained(now: Sequence[Adapter], before: Sequence[Adapter]) -> list[int]:
    """Return the positions at which a stage's list differs from that of the stage before."""
    return [i for i, adapter in enumerate(before) if not _equal(now[i], adapter)]


def share(wanted: Mapping[int, Adapter], summed: Mapping[int, Adapter]) -> Share:
    """Return what a stage adds.

    Args:
        wanted: What it sums, by position in its list; its own is the last.
        summed: What the stage before sums.
    """
    own = max(wanted)
    terms = [(1, own), *_new(wanted, summed, own), *_old(wanted, summed)]
    sources = [wanted[index] if sign > 0 else summed[index] for sign, index in terms]
    return Share(_merged(terms, sources), terms)


def _new(wanted: Mapping[int, Adapter], summed: Mapping[int, Adapter], own: int) -> list[Term]:
    """Return the terms that the stage sums and its predecessors do not."""
    return [
        (1, i)
        for i, adapter in wanted.items()
        if i != own and not (i in summed and _equal(adapter, summed[i])) and not _is_zero(adapter)
    ]


def _old(wanted: Mapping[int, Adapter], summed: Mapping[int, Adapter]) -> list[Term]:
    """Return the terms that the predecessors sum and the stage does not."""
    return [
        (-1, i)
        for i, adapter in summed.items()
        if not (i in wanted and _equal(adapter, wanted[i])) and not _is_zero(adapter)
    ]


def _merged(terms: Sequence[Term], sources: Sequence[Adapter]) -> Adapter:
    if len(terms) == 1:
        return sources[0]
    parts = [_signed(sign, adapter) for (sign, _), adapter in zip(terms, sources, strict=True)]
    axes = {"down.weight": 0, "down.bias": 0, "up.weight": 1}
    joined = {name: torch.cat([p[name] for p in parts], dim=axis) for name, axis in axes.items()}
    return {"scale": torch.ones(1), **joined, "up.bias": torch.zeros(len(joined["up.weight"]))}


def _signed(sign: int, adapter: Adapter) -> Adapter:
    """Return ``sign * adapter`` with scale 1 and its constant as one more bottleneck channel."""
    down, up = adapter["down.weight"].float(), adapter["up.weight"].float()
    columns = torch.cat([up, adapter["up.bias"].float()[:, None]], dim=1)
    return {
        "down.weight": torch.cat([down, torch.zeros_like(down[:1])]),
        "down.bias": torch.cat([adapter["down.bias"].float(), torch.ones(1)]),
        "up.weight": sign * (adapter["scale"].float() * columns),
    }


def _part(merged: Adapter, start: int, stop: int) -> Adapter:
    """Return the term in the channels from ``start`` to ``stop``, the last of them its constant."""
    return {
        "scale": torch.ones(1),
        "down.weight": merged["down.weight"][start : stop - 1],
        "down.bias": merged["down.bias"][start : stop - 1],
        "up.weight": merged["up.weight"][:, start : stop - 1],
        "up.bias": merged["up.weight"][:, stop - 1],
    }


def listed(own: Adapter, terms: Sequence[Term], before: Sequence[Adapter]) -> list[Adapter]:
    """Return the list of a stage's file from what its path adds: the inverse of ``shares``.

    Args:
        own: The adapter of the path.
        terms: What it is made of.
        before: The list of the stage before.
    """
    if len(terms) == 1:
        return [*before, own]
    now = dict(enumerate(before))
    width = len(own["down.weight"]) // len(terms)
    for place, (sign, index) in enumerate(terms):
        part = _part(own, place * width, (place + 1) * width)
        if sign > 0 and not ((-1, index) not in terms and _is_back(part, now.get(index))):
            now[index] = part
    return [now[index] for index in sorted(now)]


def _is_back(part: Adapter, before: Adapter | None) -> bool:
    """Say whether a term is the adapter of the list itself, which the last stage had left out."""
    if before is None:
        return False
    return _equal(part, _part(_signed(1, before), 0, len(before["down.weight"]) + 1))


def _equal(a: Adapter, b: Adapter) -> bool:
    return all(same(a[name], b[name]) for name in a)


def _is_zero(adapter: Adapter) -> bool:
    return not (adapter["scale"].any() and (adapter["up.weight"].any() or adapter["up.bias"].any()))
