"""Transfer, forgetting and what is left at the end, of one cell, for one kind of score at a time.

The formulas are those of ``pathweave.evaluate.scores`` on arrays: the first entry of each is the
score of the samples themselves, the others are scores of resamples. Scores of different metrics are
not on one scale. The paper averages them all the same, which is the kind ``mixed``; the other kinds
average what is alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pathweave.evaluate.metrics import unit_of

ACCURACY, CAPTIONS, MIXED = "accuracy", "captions", "mixed"
KINDS = (ACCURACY, CAPTIONS, MIXED)
MEAN = "mean"

TRANSFER, FORGETTING, LOST, FINAL = "T", "F", "lost", "final"
WHOLE = "whole"


@dataclass(frozen=True)
class Key:
    """What a number is.

    Attributes:
        quantity: ``T``: score of a modality right after learning it. ``F``: mean loss of all
            earlier modalities after learning it. ``lost``: loss of the modality itself at the end.
            ``final``: score after the last stage. ``whole``: the same on whole test sets.
        modality: Name, or ``mean`` over modalities.
        kind: One of ``KINDS``.
    """

    quantity: str
    modality: str
    kind: str


Scores = Mapping[tuple[int, str, str], Float[np.ndarray, " draws"]]


@dataclass(frozen=True)
class CellScores:
    """All scores of a cell.

    Attributes:
        curriculum: Modalities in the order in which they are learnt.
        metrics: Metric by modality and test set.
        scores: By stage, modality and test set.
        whole: By modality and test set, after the last stage; may be empty.
    """

    curriculum: Sequence[str]
    metrics: Mapping[tuple[str, str], str]
    scores: Scores
    whole: Mapping[tuple[str, str], Float[np.ndarray, " draws"]]

    def datasets(self, modality: str, kind: str) -> list[str]:
        """Return the test sets of a modality whose scores are of a kind."""
        return [
            dataset
            for (owner, dataset), metric in self.metrics.items()
            if owner == modality and kind in (MIXED, kind_of(metric))
        ]

    def score(self, stage: int, modality: str, kind: str) -> Float[np.ndarray, " draws"] | None:
        """Return the mean over test sets of a modality's scores after a stage; None if unknown."""
        found = [self.scores.get((stage, modality, d)) for d in self.datasets(modality, kind)]
        return _mean(found)

    def transfer(self, stage: int, modality: str, kind: str) -> Float[np.ndarray, " draws"] | None:
        """Return T_m: the score of modality m right after it was learnt; None if unknown.

        A method that learns several at once scores them when it has learnt the last of them.
        """
        scored = [m for m in range(stage, len(self.curriculum)) if self._is_scored(m, modality)]
        return self.score(scored[0], modality, kind) if scored else None

    def _is_scored(self, stage: int, modality: str) -> bool:
        return any(
            (stage, modality, dataset) in self.scores for dataset in self.datasets(modality, MIXED)
        )

    def forgetting(
        self, stage: int, modality: str, kind: str
    ) -> Float[np.ndarray, " draws"] | None:
        """Return F_{m,i}: what modality i has lost since its best; None if unknown.

        F_{m,i} = (1 / N_i) sum_n [max_{0 <= j < m} S^n_{j,i} - S^n_{m,i}], over the stages j at
        which it was scored.
        """
        losses = []
        for dataset in self.datasets(modality, kind):
            earlier = [
                self.scores[j, modality, dataset]
                for j in range(stage)
                if (j, modality, dataset) in self.scores
            ]
            now = self.scores.get((stage, modality, dataset))
            losses.append(np.max(earlier, axis=0) - now if earlier and now is not None else None)
        return _mean(losses)


def kind_of(metric: str) -> str:
    """Return whether scores of a metric are accuracies or scores of captions.

    Example:
        >>> kind_of("exact_match"), kind_of("cider_d")
        ('accuracy', 'captions')
    """
    return ACCURACY if unit_of(metric) == "%" else CAPTIONS


def quantities(cell: CellScores) -> dict[Key, Float[np.ndarray, " draws"]]:
    """Return everything that is known of a cell.

    The mean of T and of F is over the stages after the first, which is the base that all methods
    start from; the mean of ``lost`` is over all modalities but the last, that of ``final`` and
    ``whole`` over all.
    """
    found: dict[Key, Float[np.ndarray, " draws"]] = {}
    for kind in KINDS:
        for quantity, values in _values(cell, kind):
            known = {name: value for name, value in values.items() if value is not None}
            for name, value in known.items():
                found[Key(quantity, name, kind)] = value
            averaged = [value for name, value in known.items() if _counts(cell, quantity, name)]
            expected = [name for name in values if _counts(cell, quantity, name)]
            # A mean over fewer modalities than other cells have would not be comparable.
            if averaged and len(averaged) == len(expected):
                found[Key(quantity, MEAN, kind)] = np.mean(averaged, axis=0)
    return found


def _counts(cell: CellScores, quantity: str, modality: str) -> bool:
    """Say whether a modality is part of the mean."""
    return quantity not in (TRANSFER, FORGETTING) or modality != cell.curriculum[0]


Values = dict[str, Float[np.ndarray, " draws"] | None]


def _values(cell: CellScores, kind: str) -> Iterator[tuple[str, Values]]:
    names = [name for name in cell.curriculum if cell.datasets(name, kind)]
    stages = {name: cell.curriculum.index(name) for name in names}
    last = len(cell.curriculum) - 1
    yield TRANSFER, {name: cell.transfer(stages[name], name, kind) for name in names}
    yield (
        FORGETTING,
        {
            name: _mean([cell.forgetting(m, old, kind) for old in names if stages[old] < m])
            for m, name in enumerate(cell.curriculum)
            if m > 0 and any(stage < m for stage in stages.values())
        },
    )
    olds = [name for name in names if stages[name] < last]
    yield LOST, {name: cell.forgetting(last, name, kind) for name in olds}
    yield FINAL, {name: cell.score(last, name, kind) for name in names}
    wholes = {
        name: _mean([cell.whole.get((name, d)) for d in cell.datasets(name, kind)])
        for name in names
    }
    yield WHOLE, wholes


def _mean(
    values: Sequence[Float[np.ndarray, " draws"] | None],
) -> Float[np.ndarray, " draws"] | None:
    known = [value for value in values if value is not None]
    return np.mean(known, axis=0) if known and len(known) == len(values) else None
