"""Scores of all modalities learnt so far, after each stage."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pathweave.data.examples import Examples
from pathweave.display import Display
from pathweave.errors import RunError
from pathweave.evaluate.score_sets import (
    evaluate_set,
    majority_score,
    score_set,
    subset,
    text_only_score,
)
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.schema import DataSet, Recipe, TestSet
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import read_json, write_json
from pathweave.train.log import RunLog


@dataclass
class Scoring:
    """Score stages and keep the scores on disk.

    The score matrix compares stages, so every stage scores the same samples in the same batches:
    all of a test set, or the recipe's fixed subset. After the last stage the rest of each set is
    answered too, for the score of the whole. Every set is kept when it is scored, so that a kill
    loses one set at most.

    Args:
        recipe: The run.
        run: Its directory.
        examples: Gives the usable samples of a data set.
        display: Where progress is shown.
        log: Where scores are recorded.
    """

    recipe: Recipe
    run: RunDirectory
    examples: Callable[[DataSet], Examples]
    display: Display
    log: RunLog

    def __post_init__(self) -> None:
        rule = f"{self.run.scores} must hold the scores of this run"
        remedy = "remove it to score the stages again"
        stored: dict[str, Any] = {}
        if self.run.scores.exists():
            stored = read_json(self.run.scores, rule, remedy, RunError)
        self.matrix: ScoreMatrix[float] = ScoreMatrix(self.recipe.curriculum)
        try:
            self.sets = {name: {**about} for name, about in stored.get("sets", {}).items()}
            # The stored matrix may be of a shorter curriculum, to which stages have been added.
            for entry in stored.get("matrix", {}).get("scores", ()):
                self.matrix.add(entry["stage"], entry["modality"], entry["dataset"], entry["score"])
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{rule}, got {error!r}; {remedy}") from error

    def is_complete(self, stage: int) -> bool:
        """Return whether every score of a stage is known."""
        return not any(self._unscored(stage))

    def score_stage(self, model: PathWeave, stage: int) -> None:
        """Score every modality learnt so far, but for the sets that are scored already."""
        for name, dataset, test_set in self._unscored(stage):
            self._score(model, stage, name, dataset, test_set)
            write_json(self.run.scores, {"matrix": self.matrix.as_dict(), "sets": self.sets})
        scores = []
        for name in self.recipe.curriculum[: stage + 1]:
            of_sets = [self.matrix.score(stage, name, d) for d in self.matrix.datasets(name)]
            scores.append(f"{name} {'/'.join(f'{score:.1f}' for score in of_sets)}")
        self.display.say(f"after {self.recipe.curriculum[stage]}: {'  '.join(scores)}")

    def _unscored(self, stage: int) -> Iterator[tuple[str, str, TestSet]]:
        """Yield modality, name and test set of every score of a stage that is not known."""
        seen = self.recipe.curriculum[: stage + 1]
        for name in seen:
            for dataset, test_set in self.recipe.modalities[name].test.items():
                # The whole may have been scored after the last stage of a shorter curriculum.
                after = self.sets.get(f"{name}/{dataset}", {}).get("after")
                is_kept = self.run.whole_predictions(name, dataset).is_file()
                is_whole = not self._is_last(stage) or (after == seen[-1] and is_kept)
                if not (is_whole and self.matrix.has(stage, name, dataset)):
                    yield name, dataset, test_set

    def _score(
        self, model: PathWeave, stage: int, name: str, dataset: str, test_set: TestSet
    ) -> None:
        examples = self.examples(test_set)
        began = time.perf_counter()
        chosen = subset(len(examples), self.recipe.evaluation.subset)
        whole = self._is_last(stage)
        rest = sorted(set(range(len(examples))) - set(chosen)) if whole else []
        bar = self.display.bar(f"score {name}/{dataset}", total=len(chosen) + len(rest))
        size = self.recipe.evaluation.batch_size
        answers = evaluate_set(model, examples, test_set, size, chosen, bar.advance)
        result = score_set(examples, test_set, answers)
        self.matrix.add(stage, name, dataset, result.score)
        after = self.recipe.curriculum[stage]
        told = {"after": after, "modality": name, "dataset": dataset, **result.summary}
        result.save(self.run.stage_predictions(after, name, dataset))
        if whole:
            if rest:
                answers |= evaluate_set(model, examples, test_set, size, rest, bar.advance)
                result = score_set(examples, test_set, answers)
            result.save(self.run.whole_predictions(name, dataset))
            modality = self.recipe.modalities[name]
            about = {**result.summary, "subset": len(chosen)}
            about["text_only"] = text_only_score(model, examples, test_set, chosen)
            if dataset in modality.train:
                train = self.examples(modality.train[dataset])
                about["majority"] = majority_score(train, examples, test_set)
            self.sets[f"{name}/{dataset}"] = {**about, "after": after}
        self.log.event("score", **told, seconds=round(time.perf_counter() - began, 1))
        bar.close()

    def _is_last(self, stage: int) -> bool:
        is_last = stage == len(self.recipe.curriculum) - 1
        return is_last and self.recipe.evaluation.whole_at_end
