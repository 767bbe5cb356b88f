"""Replay buffers: samples of earlier modalities, and mixtures of them with others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pathweave.methods.lesson import Samples, StageContext, WeightedSet
from pathweave.model.prompt import Prompt


@dataclass(frozen=True)
class Subset:
    """Some samples of a set.

    Attributes:
        samples: The set.
        indices: Which of its samples.
    """

    samples: Samples
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a sample with its media encoded."""
        return self.samples.prompt(self.indices[index])

    def answer(self, index: int) -> str:
        """Return what is to be learnt as the answer."""
        return self.samples.answer(self.indices[index])

    def length(self, index: int) -> int:
        """Return a measure of the length of a sample."""
        return self.samples.length(self.indices[index])


def replay_buffer(context: StageContext, name: str, count: int) -> list[WeightedSet]:
    """Return samples of a modality to keep, the same in every stage of a run.

    Args:
        context: The stage.
        name: The modality.
        count: Number of samples, split over its training sets by their weight; a set that has
            fewer gives all.
    """
    sets = context.sets(name)
    total = sum(each.weight for each in sets)
    position = context.recipe.curriculum.index(name)
    drawn = []
    for which, each in enumerate(sets):
        random = np.random.default_rng([context.recipe.seed, position, which])
        number = max(1, round(count * each.weight / total))
        indices = sorted(int(i) for i in random.permutation(len(each.samples))[:number])
        drawn.append(replace(each, samples=Subset(each.samples, tuple(indices))))
    return drawn


def mixture(
    first: Sequence[WeightedSet], *others: Sequence[WeightedSet], weight: float = 1.0
) -> list[WeightedSet]:
    """Return the sets of several modalities to draw from together.

    Args:
        first: Sets of one modality.
        others: Sets of the others.
        weight: How often each of the others is drawn, relative to the first.
    """
    total = sum(each.weight for each in first)
    mixed = list(first)
    for sets in others:
        scale = weight * total / sum(each.weight for each in sets)
        mixed += [replace(each, weight=each.weight * scale) for each in sets]
    return mixed
