"""Scores of any path of a run on any manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from pathweave.data.examples import Examples
from pathweave.display import Display, WholeTable
from pathweave.evaluate.score_sets import evaluate_set, score_set, subset
from pathweave.metrics import METRICS, unit_of
from pathweave.recipe.schema import Recipe, TestSet
from pathweave.runs.loading import load_run, make_readers, placed_model
from pathweave.runs.run_directory import RunDirectory
from pathweave.train.processes import Processes, lost_processes


def evaluate_manifests(
    run: Path,
    manifests: Sequence[Path],
    metric: str,
    path: str | None,
    limit: int | None,
    max_tokens: int,
    quiet: bool,
) -> list[dict[str, Any]] | None:
    """Return one score per manifest; for no manifest, one per test set of the recipe.

    Of several processes each answers a share, and the first one returns the scores.

    Raises:
        RunError: If the directory is no run, or too many samples are bad.
        ManifestError: If a manifest cannot be read or names a modality that is not declared.
    """
    model, recipe = load_run(run)
    readers = make_readers(recipe, model.base, RunDirectory(run))
    processes = Processes(Accelerator())
    processes.shard(model)
    placed_model(model, processes.accelerator.device)
    scores = []
    with Display(quiet or not processes.is_first) as display, lost_processes():
        for name, test_set in _sets(recipe, manifests, metric, max_tokens, model.paths.names):
            manifest, read_with = Path(test_set.manifest), path or test_set.path
            examples = Examples(
                manifest, readers, read_with, prompts=test_set.prompt, seed=recipe.seed
            )
            bar = display.bar(f"encode {name}", total=len(examples))
            processes.encode(examples, bar.advance)
            examples.drop_bad_samples(recipe.bad_samples, model.misfit)
            processes.check_samples(examples)
            bar.close()
            chosen = subset(len(examples), limit)
            bar = display.bar(f"score {name}", total=len(chosen))
            size = recipe.evaluation.batch_size
            spread = processes.spread
            answers = evaluate_set(model, examples, test_set, size, chosen, bar.advance, spread)
            bar.close()
            if processes.is_first:
                result = score_set(examples, test_set, answers)
                scores.append({"set": name, **result.summary, "bad": examples.bad})
    return scores if processes.is_first else None


def _sets(
    recipe: Recipe, manifests: Sequence[Path], metric: str, max_tokens: int, learnt: Sequence[str]
) -> list[tuple[str, TestSet]]:
    if not manifests:
        return [
            (f"{name}/{dataset}", test_set)
            for name in learnt
            if name in recipe.modalities  # others came with the base
            for dataset, test_set in recipe.modalities[name].test.items()
        ]
    METRICS[metric]  # a wrong one is told before the model is loaded
    return [
        (m.stem, TestSet(manifest=str(m), metric=metric, max_tokens=max_tokens)) for m in manifests
    ]


def show_scores(scores: Sequence[dict[str, Any]]) -> None:
    """Print scores as a table with the coverage of each."""
    table = WholeTable("set", "metric", "score", "95 %", "scored", "usable")
    for score in scores:
        around = "" if score["low"] is None else f"{score['low']:.1f} to {score['high']:.1f}"
        usable = f"{score['num_usable']:,} of {score['num_total']:,}"
        shown = f"{score['score']:.1f}", around, f"{score['num_samples']:,}", usable
        table.add_row(score["set"], unit_of(score["metric"]), *shown)
    Console().print(table, crop=False)
