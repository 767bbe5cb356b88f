"""One test set, scored."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.data.examples import Examples
from pathweave.errors import ManifestError
from pathweave.evaluate.samples import Measured, measure, save_answers
from pathweave.metrics import METRICS
from pathweave.metrics.bootstrap import interval
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt, blanked
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.schema import TestSet

SUBSET_SEED = 0

Spread = Callable[[Callable[[list[int]], list[str]], Sequence[list[int]]], Iterable[list[str]]]
"""What a function gives for each batch, in their order, such as ``map``."""

# What a test set chooses of how answers are generated.
_DECODING = {"max_tokens", "min_tokens", "beams", "length_penalty", "repetition_penalty"}


@dataclass(frozen=True)
class SetResult:
    """The score of one test set and what it was computed from.

    Attributes:
        score: Value of the metric, in its unit.
        summary: Everything but what is known of each sample. ``low``, ``high``: ends of the
            interval of 95 % confidence over the objects of the set, None if all samples show one.
            ``tokenizer``: how texts were cut into words, None if they were compared whole.
            ``num_samples``, ``num_objects``: samples scored, and things they show, of which a
            sample that names no object shows one of its own. ``num_usable``, ``num_total``: samples
            of the set whose media could be read, and as published.
        ids: Ids of the scored samples.
        predictions: Answer to each.
        measured: What each contributes to the score.
    """

    score: float
    summary: dict[str, Any]
    ids: list[str]
    predictions: list[str]
    measured: Measured

    def save(self, file: Path) -> None:
        """Write the answers and what each contributes, of ``pathweave.evaluate.samples``.

        Raises:
            DiskError: If the directory cannot be written.
        """
        save_answers(file, self.ids, self.predictions, self.measured)


def subset(size: int, limit: int | None) -> list[int]:
    """Return ``limit`` of ``size`` indices, always the same ones; all for None.

    Example:
        >>> subset(3, None)
        [0, 1, 2]
    """
    if limit is None or limit >= size:
        return list(range(size))
    return sorted(int(i) for i in np.random.default_rng(SUBSET_SEED).permutation(size)[:limit])


def evaluate_set(
    model: PathWeave,
    examples: Examples,
    test_set: TestSet,
    batch_size: int,
    chosen: Sequence[int] | None = None,
    advance: Callable[[int], None] = lambda _: None,
    spread: Spread = map,
) -> dict[int, str]:
    """Answer samples of a test set.

    Args:
        model: The model; it is put into evaluation mode.
        examples: The set's usable samples.
        test_set: Metric and decoding.
        batch_size: Samples at once.
        chosen: Indices of the samples to answer; None is all.
        advance: Called with the number of samples done.
        spread: Answers batches, perhaps on several processes.

    Returns:
        The answer to each sample, by index.

    Raises:
        ManifestError: If ``ranking`` is asked for and a sample has no choices.
    """
    model.eval()
    # Batches of like length pad less. The order is fixed, so scores do not depend on chance.
    order = sorted(range(len(examples)) if chosen is None else chosen, key=examples.length)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def answer(batch: list[int]) -> list[str]:
        return _answers(model, [examples.prompt(i) for i in batch], examples, test_set, batch)

    predictions: dict[int, str] = {}
    for batch, answers in zip(batches, spread(answer, batches), strict=True):
        predictions |= zip(batch, answers, strict=True)
        advance(len(batch))
    return predictions


def score_set(examples: Examples, test_set: TestSet, predictions: Mapping[int, str]) -> SetResult:
    """Score answers given by index, with an interval of confidence over the objects shown."""
    chosen = sorted(predictions)
    samples = [examples.sample(i) for i in chosen]
    answers = [predictions[i] for i in chosen]
    metric, found = METRICS[test_set.metric], measure(samples, answers, test_set.metric)
    objects: list[int] = found.objects.tolist()
    num_objects = len(set(objects))
    around = interval(found.statistics, metric.combine, objects) if num_objects > 1 else None
    summary: dict[str, Any] = {
        "metric": metric.name,
        "score": metric.score(found.statistics),
        "low": around and around.low,
        "high": around and around.high,
        "tokenizer": metric.tokenizer,
        "num_samples": len(chosen),
        "num_objects": num_objects,
        "num_usable": len(examples),
        "num_total": examples.published,
    }
    return SetResult(summary["score"], summary, [s.id for s in samples], answers, found)


def majority_score(train: Examples, test: Examples, test_set: TestSet) -> float:
    """Return the score of giving every sample the most frequent answer of the training set."""
    counts = Counter(train.answer(i) for i in range(len(train)))
    answer = max(counts, key=lambda text: (counts[text], text))
    return score_set(test, test_set, dict.fromkeys(range(len(test)), answer)).score


def text_only_score(
    model: PathWeave,
    examples: Examples,
    test_set: TestSet,
    chosen: Sequence[int],
    spread: Spread = map,
) -> float:
    """Return the score of the model when every medium's features are zero: what text gives away.

    Samples with the same question get the same answer then, so each question is asked once.
    """
    model.eval()
    alike: dict[tuple[object, ...], list[int]] = {}
    for i in chosen:
        key = tuple(
            (p.path, p.modality, p.features.shape) if isinstance(p, Medium) else p
            for p in blanked(examples.prompt(i))
        )
        alike.setdefault(key, []).append(i)

    def answer(batch: list[int]) -> list[str]:
        return _answers(model, [blanked(examples.prompt(batch[0]))], examples, test_set, batch[:1])

    groups = list(alike.values())
    answers = zip(groups, spread(answer, groups), strict=True)
    predictions = {i: said for group, [said] in answers for i in group}
    return score_set(examples, test_set, predictions).score


def _answers(
    model: PathWeave,
    prompts: Sequence[Prompt],
    examples: Examples,
    test_set: TestSet,
    batch: Sequence[int],
) -> list[str]:
    """Return the answers to prompts of samples: the likeliest choices, or what is generated."""
    if not METRICS[test_set.metric].ranks_choices:
        return generate(model, prompts, **test_set.model_dump(include=_DECODING))
    choices = examples.sample(batch[0]).choices
    if not choices or any(examples.sample(i).choices != choices for i in batch):
        raise ManifestError(
            f"{examples.manifest.path} must give the same choices with every sample for ranking, "
            f"got {list(choices)[:3]} in {examples.sample(batch[0]).id!r}; add them or choose "
            "exact_match"
        )
    scores = log_likelihoods(model, prompts, choices)
    return [choices[int(best)] for best in scores.argmax(1)]
