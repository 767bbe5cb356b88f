"""The score matrix, and transfer and forgetting as the paper defines them.

S^n_{m,i} is the score on the n-th of the N_i test sets of modality i after training stage m.
Stages and modalities are counted from 0: stage m learns modality m of the curriculum, and modality
0 is what the base can do from the start.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from pathweave.errors import RunError

Score = TypeVar("Score", float, np.ndarray)
"""A number, or an array of the scores that one system gets on many resamples of a test set."""


class ScoreMatrix(Generic[Score]):
    """Scores after each stage, and what follows from them.

    Scores of different metrics are not on one scale; transfer and forgetting average them all the
    same, as the paper does, and are in "points".

    A stage after which nothing was scored at all counts as one with the next: a method that learns
    several modalities at once has no scores before it has learnt the last of them.

    Args:
        curriculum: Names of the modalities, in the order in which they are learnt.

    Example:
        >>> scores = ScoreMatrix(["see", "hear"])
        >>> scores.add(0, "see", "qa", 80.0)
        >>> scores.add(1, "see", "qa", 30.0)
        >>> scores.add(1, "hear", "qa", 60.0)
        >>> scores.transfer(1), scores.forgetting(1, "see")
        (60.0, 50.0)
    """

    def __init__(self, curriculum: Sequence[str]) -> None:
        if not curriculum or len(set(curriculum)) != len(curriculum):
            raise RunError(
                f"a curriculum must name each modality once, got {list(curriculum)}; correct it in "
                "the recipe"
            )
        self.curriculum = tuple(curriculum)
        self._scores: dict[tuple[int, str, str], Score] = {}
        self._scored_stages: set[int] = set()
        self._datasets: dict[str, list[str]] = {modality: [] for modality in curriculum}

    def add(self, stage: int, modality: str, dataset: str, score: Score) -> None:
        """Enter a score, or replace it.

        Raises:
            RunError: If the stage or the modality is unknown, or the score is not finite.
        """
        self._check(stage, modality)
        if not isinstance(score, np.ndarray) and not math.isfinite(score):
            raise RunError(
                f"a score must be a finite number, got {score} for {modality}/{dataset} after "
                f"stage {stage}; look at the predictions of that evaluation"
            )
        if dataset not in self._datasets[modality]:
            self._datasets[modality].append(dataset)
        self._scores[stage, modality, dataset] = score
        self._scored_stages.add(stage)

    def only(self, datasets: Mapping[str, Sequence[str]]) -> "ScoreMatrix[Score]":
        """Return the matrix of some test sets by modality; of one never entered all is missing."""
        chosen: ScoreMatrix[Score] = ScoreMatrix(self.curriculum)
        chosen._datasets = {name: list(datasets.get(name, ())) for name in self.curriculum}
        chosen._scores = {k: v for k, v in self._scores.items() if k[2] in chosen._datasets[k[1]]}
        chosen._scored_stages = self._scored_stages
        return chosen

    def datasets(self, modality: str) -> list[str]:
        """Return the test sets of a modality, in the order in which they were first entered."""
        self._learnt(modality)
        return list(self._datasets[modality])

    def has(self, stage: int, modality: str, dataset: str) -> bool:
        """Return whether there is such a score."""
        return (stage, modality, dataset) in self._scores

    def can_lose(self, stage: int, modality: str) -> bool:
        """Return whether a modality was scored before a stage, so that it may have lost by it."""
        return any(j < stage and name == modality for j, name, _ in self._scores)

    def score(self, stage: int, modality: str, dataset: str) -> Score:
        """Return S^n_{m,i}.

        Raises:
            RunError: If it was not entered.
        """
        self._check(stage, modality)
        if not self.has(stage, modality, dataset):
            raise RunError(
                f"the score of {modality}/{dataset} after stage {stage} "
                f"({self.curriculum[stage]}) must be known for this, got none; evaluate it first"
            )
        return self._scores[stage, modality, dataset]

    def transfer(self, stage: int) -> Score:
        """Return T_m = (1 / N_m) sum_n S^n_{m,m}: how well the new modality is learnt.

        Raises:
            RunError: If a score is missing.
        """
        self._check(stage, self.curriculum[0])
        scored = min((m for m in self._scored_stages if m >= stage), default=stage)
        return self.mean_score(scored, self.curriculum[stage])

    def mean_score(self, stage: int, modality: str) -> Score:
        """Return (1 / N_i) sum_n S^n_{m,i}: the mean over the test sets of a modality.

        Raises:
            RunError: If a score is missing.
        """
        return self._mean_over_sets(self.score, stage, modality)

    def forgetting(self, stage: int, modality: str) -> Score:
        """Return F_{m,i} = (1 / N_i) sum_n [max_{0 <= j < m} S^n_{j,i} - S^n_{m,i}].

        It is what modality i has lost since its best; below 0 if it has improved. The scores of
        the scored stages i <= j <= m must be known; where there is one from before modality i was
        learnt (j < i), it counts too.

        Args:
            stage: m, a stage after the modality was learnt.
            modality: i, by name.

        Raises:
            RunError: If the modality is learnt at that stage or later, or a score is missing.
        """
        self._check(stage, modality)
        learnt = self._learnt(modality)
        if learnt >= stage:
            raise RunError(
                f"forgetting of {modality!r} must be measured after stage {learnt}, at which it is "
                f"learnt, got stage {stage}"
            )
        return self._mean_over_sets(self._loss, stage, modality)

    def forgetting_mean(self, stage: int) -> Score:
        """Return F_m = (1 / m) sum_{i < m} F_{m,i}: the mean over all old modalities.

        Raises:
            RunError: If the stage is the first, or a score is missing.
        """
        self._check(stage, self.curriculum[0])
        if stage == 0:
            raise RunError("forgetting must follow a stage after the first, got stage 0")
        return mean([self.forgetting(stage, modality) for modality in self.curriculum[:stage]])

    def dataset_transfer(self, modality: str, dataset: str) -> Score:
        """Return That^n_i = S^n_{i,i}: the score on one test set right after learning it.

        Raises:
            RunError: If it is missing.
        """
        return self.score(self._learnt(modality), modality, dataset)

    def dataset_forgetting(self, modality: str, dataset: str) -> Score:
        """Return Fhat^n_i = (1 / M) sum_{m=1}^M [max_{0 <= j < m} S^n_{j,i} - S^n_{m,i}].

        It is the mean loss on one test set over the stages after the modality was learnt. For
        modality 0 these are the M stages of the formula; for modality i they are the M - i stages
        m > i, for before that there was nothing to forget.

        Raises:
            RunError: If no stage follows, or a score is missing.
        """
        stages = range(self._learnt(modality) + 1, len(self.curriculum))
        if not stages:
            raise RunError(
                f"forgetting of {modality!r} must follow a later stage, got the last of the "
                "curriculum"
            )
        return mean([self._loss(stage, modality, dataset) for stage in stages])

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for JSON."""
        scores = [
            {"stage": stage, "modality": modality, "dataset": dataset, "score": score}
            for (stage, modality, dataset), score in self._scores.items()
        ]
        return {"curriculum": list(self.curriculum), "scores": scores}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "ScoreMatrix[float]":
        """Return the matrix that ``as_dict`` described.

        Raises:
            RunError: If a field is missing.
        """
        try:
            matrix: ScoreMatrix[float] = ScoreMatrix(value["curriculum"])
            for entry in value["scores"]:
                matrix.add(entry["stage"], entry["modality"], entry["dataset"], entry["score"])
        except (KeyError, TypeError) as error:
            raise RunError(
                f"a stored score matrix must have the fields that as_dict writes, got a problem "
                f"with {error}; evaluate again"
            ) from error
        return matrix

    def _loss(self, stage: int, modality: str, dataset: str) -> Score:
        needed = {m for m in self._scored_stages if m >= self._learnt(modality)}
        known = [j for j in range(stage) if j in needed or self.has(j, modality, dataset)]
        earlier = [self.score(j, modality, dataset) for j in known]
        if not earlier:
            raise RunError(
                f"forgetting of {modality}/{dataset} must be measured from an earlier score, got "
                f"none before stage {stage}; evaluate an earlier stage"
            )
        is_array = isinstance(earlier[0], np.ndarray)
        best = np.max(earlier, axis=0) if is_array else max(earlier)
        return best - self.score(stage, modality, dataset)

    def _mean_over_sets(
        self, of: Callable[[int, str, str], Score], stage: int, modality: str
    ) -> Score:
        self._check(stage, modality)
        if not self._datasets[modality]:
            raise RunError(
                f"modality {modality!r} must have a scored test set, got none; evaluate it first"
            )
        return mean([of(stage, modality, dataset) for dataset in self._datasets[modality]])

    def _learnt(self, modality: str) -> int:
        """Return the stage that learns a modality."""
        if modality not in self._datasets:
            known = ", ".join(self.curriculum)
            raise RunError(f"modality must be one of {known}, got {modality!r}")
        return self.curriculum.index(modality)

    def _check(self, stage: int, modality: str) -> None:
        self._learnt(modality)
        if not 0 <= stage < len(self.curriculum):
            raise RunError(
                f"stage must be in [0, {len(self.curriculum) - 1}], got {stage}; the curriculum "
                f"has {len(self.curriculum)} modalities"
            )


def mean(values: Sequence[Score]) -> Score:
    """Return the mean of scores; there must be one."""
    return sum(values[1:], values[0]) / len(values)
