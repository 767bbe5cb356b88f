"""Scores of all modalities learnt so far, after each stage."""

import time
from collections.abc import Callable
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
from pathweave.train.processes import Processes


@dataclass
class Scoring:
    """Score stages and keep the scores on disk.

    The score matrix compares stages, so every stage scores the same samples in the same batches:
    all of a test set, or the recipe's fixed subset. After the last stage the rest of each set is
    answered too, for the score of the whole. Every set is kept when it is scored, so that a kill
    loses one set at most. All processes answer; what comes of it the first one computes and writes.

    Args:
        recipe: The run.
        run: Its directory.
        examples: Gives the usable samples of a data set.
        display: Where progress is shown.
        log: Where scores are recorded.
        processes: Those that score together.
    """

    recipe: Recipe
    run: RunDirectory
    examples: Callable[[DataSet], Examples]
    display: Display
    log: RunLog
    processes: Processes

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
        return not self._unscored(stage)

    def score_stage(self, model: PathWeave, stage: int) -> None:
        """Score every modality learnt so far, but for the sets that are scored already."""
        for unscored in self._unscored(stage):
            self._score(model, stage, *unscored)
        if not self.processes.is_first:
            return
        scores = []
        for name in self.recipe.curriculum[: stage + 1]:
            of_sets = [self.matrix.score(stage, name, d) for d in self.matrix.datasets(name)]
            scores.append(f"{name} {'/'.join(f'{score:.1f}' for score in of_sets)}")
        self.display.say(f"after {self.recipe.curriculum[stage]}: {'  '.join(scores)}")

    def _unscored(self, stage: int) -> list[tuple[str, str, TestSet]]:
        """Return modality, name and test set of each score that the first process does not know."""
        seen, found = self.recipe.curriculum[: stage + 1], []
        for name in seen:
            for dataset, test_set in self.recipe.modalities[name].test.items():
                # The whole may have been scored after the last stage of a shorter curriculum.
                after = self.sets.get(f"{name}/{dataset}", {}).get("after")
                is_kept = self.run.whole_predictions(name, dataset).is_file()
                is_whole = not self._is_last(stage) or (after == seen[-1] and is_kept)
                if not (is_whole and self.matrix.has(stage, name, dataset)):
                    found.append((name, dataset, test_set))
        return self.processes.gathered(found)[0]

    def _score(
        self, model: PathWeave, stage: int, name: str, dataset: str, test_set: TestSet
    ) -> None:
        examples = self.examples(test_set)
        began = time.perf_counter()
        chosen = subset(len(examples), self.recipe.evaluation.subset)
        whole = self._is_last(stage)
        rest = sorted(set(range(len(examples))) - set(chosen)) if whole else []
        bar = self.display.bar(f"score {name}/{dataset}", total=len(chosen) + len(rest))
        asked = model, examples, test_set
        size, spread = self.recipe.evaluation.batch_size, self.processes.spread
        answers = evaluate_set(*asked, size, chosen, bar.advance, spread)
        of_rest = evaluate_set(*asked, size, rest, bar.advance, spread) if rest else {}
        about: dict[str, Any] = {"subset": len(chosen)}
        train = None
        if whole:
            about["text_only"] = text_only_score(*asked, chosen, spread)
            if data := self.recipe.modalities[name].train.get(dataset):
                train = self.examples(data)

        def keep() -> None:
            result = score_set(examples, test_set, answers)
            self.matrix.add(stage, name, dataset, result.score)
            after = self.recipe.curriculum[stage]
            told = {"after": after, "modality": name, "dataset": dataset, **result.summary}
            result.save(self.run.stage_predictions(after, name, dataset))
            if whole:
                result = score_set(examples, test_set, answers | of_rest) if rest else result
                result.save(self.run.whole_predictions(name, dataset))
                if train is not None:
                    about["majority"] = majority_score(train, examples, test_set)
                self.sets[f"{name}/{dataset}"] = {**result.summary, **about, "after": after}
            self.log.event("score", **told, seconds=round(time.perf_counter() - began, 1))
            write_json(self.run.scores, {"matrix": self.matrix.as_dict(), "sets": self.sets})

        self.processes.alone(keep)
        bar.close()

    def _is_last(self, stage: int) -> bool:
        is_last = stage == len(self.recipe.curriculum) - 1
        return is_last and self.recipe.evaluation.whole_at_end
