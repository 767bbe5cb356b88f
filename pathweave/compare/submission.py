"""Submission: the result of a grid as one file that others can check and put beside theirs.

It holds the scores of every cell, from which whoever reads it computes the means again, and what
they were computed from: hashes of recipes, of manifests and of what each test sample got.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from pathweave.compare.analysis import Analysis
from pathweave.compare.cell import LoadedCell, Scored, load_cell
from pathweave.compare.grid import Grid
from pathweave.compare.grid_report import file_name
from pathweave.compare.quantities import APART, MEAN, Key, Quantity, quantities
from pathweave.compare.run_grid import select, state_of
from pathweave.compare.uncertainty import half_width
from pathweave.data.manifest import manifest_sha256
from pathweave.errors import RunError
from pathweave.evaluate.results import StageResults
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.recipe.schema import Recipe
from pathweave.storage.atomic import sha256_bytes, write_json

QUANTITIES = (Quantity.T, Quantity.F, Quantity.FINAL)


class SubmittedMean(BaseModel, extra="forbid", frozen=True):
    """A mean over modalities and seeds, with its intervals of 95 % confidence.

    Attributes:
        value: Mean over seeds.
        per_seed: The value of each seed.
        seeds: Half-width of the interval over seeds; None for one seed.
        low: Lower end of the interval over test samples.
        high: Upper end.
    """

    value: float
    per_seed: tuple[float, ...]
    seeds: float | None
    low: float | None
    high: float | None


class SubmittedCell(BaseModel, extra="forbid", frozen=True):
    """A run: hashes of its recipe and of what each sample got, scores by ``Scored.key``."""

    seed: int
    recipe_hash: str
    samples: str
    versions: dict[str, str]
    trained: int
    scores: dict[str, float]


class Unchanged(BaseModel, extra="forbid", frozen=True):
    """Proof that nothing was forgotten: what samples got after a later stage, compared with before.

    Attributes:
        compared: Test sets of earlier modalities after later stages, over all seeds.
        identical: Those of which every sample got the same to the last bit.
    """

    compared: int
    identical: int


class Entry(BaseModel, extra="forbid", frozen=True):
    """A method in all its seeds; means by quantity and kind of score, such as ``T/accuracy``."""

    method: str
    forgets_nothing: bool
    proof: Unchanged
    cells: tuple[SubmittedCell, ...]
    means: dict[str, SubmittedMean]


class Submission(BaseModel, extra="forbid", frozen=True):
    """The methods of a grid in its main order.

    Attributes:
        format: Version of the file.
        name: Name of the grid; the file bears it.
        curriculum: The modalities in the order in which they are learnt.
        seeds: Seeds of every method.
        metrics: Metric by test set, such as ``sound/qa``.
        data: SHA-256 of every manifest, such as ``sound/test/qa``, and of the ids of the samples
            that were scored after each stage, such as ``sound/scored/qa``.
        entries: The methods.
        content_hash: SHA-256 of all the rest.
    """

    format: Literal[1] = 1
    name: str
    curriculum: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: dict[str, str]
    data: dict[str, str]
    entries: tuple[Entry, ...]
    content_hash: str = ""

    def hashed(self) -> str:
        """Return the hash of all but the hash."""
        tree = self.model_dump(mode="json", exclude={"content_hash"})
        return sha256_bytes(json.dumps(tree, sort_keys=True).encode())

    def problems(self) -> Iterator[str]:
        """Yield what does not hold: of the hash, the cells, the means, the proofs."""
        if self.content_hash != self.hashed():
            yield f"content_hash must be that of the file, got {self.content_hash[:12]}"
        if not self.entries:
            yield "entries must hold a method, got none"
        for entry in self.entries:
            if tuple(cell.seed for cell in entry.cells) != self.seeds:
                yield f"{entry.method} must have the seeds {list(self.seeds)}, got others"
                continue
            try:
                found = self._means(entry)
            except (RunError, KeyError, TypeError, ValueError) as error:
                yield f"{entry.method} must have the scores of all stages, got {error!r:.100}"
                continue
            told = {name: mean.per_seed for name, mean in entry.means.items()}
            if found.keys() != told.keys() or not all(
                np.allclose(found[name], told[name], rtol=1e-9, atol=1e-9) for name in found
            ):
                yield f"means of {entry.method} must be those of its scores, got others"
            for name, mean in entry.means.items():
                if not _is_sound(mean):
                    yield f"{name} of {entry.method} must be the mean of its seeds, got another"
            lost = [value for name, per in found.items() if name[0] == "F" for value in per]
            is_proved = entry.proof.compared == self._num_compared(found)
            is_proved &= entry.proof.compared == entry.proof.identical
            if entry.forgets_nothing != (bool(lost) and not any(lost) and is_proved):
                yield f"forgets_nothing of {entry.method} must be as proved, got another"

    def _num_compared(self, found: dict[str, list[float]]) -> int:
        """Return how many comparisons a proof needs; none where there is nothing to forget."""
        later = {name: len(self.curriculum) - 1 - i for i, name in enumerate(self.curriculum)}
        one = sum(later[test_set.split("/")[0]] for test_set in self.metrics)
        return one * len(self.seeds) if any(name[0] == "F" for name in found) else 0

    def _means(self, entry: Entry) -> dict[str, list[float]]:
        """Return the means of a method by seed, computed from its scores."""
        found: dict[str, list[float]] = {}
        for cell in entry.cells:
            matrix = ScoreMatrix[np.ndarray](self.curriculum)
            for name, score in cell.scores.items():
                after, modality, dataset = Scored.parse(name)
                stage = self.curriculum.index(after or "")
                matrix.add(stage, modality, dataset, np.array([score]))
            metrics = {}
            for name, metric in self.metrics.items():
                modality, dataset = name.split("/", 1)
                metrics[modality, dataset] = metric
                matrix.score(len(self.curriculum) - 1, modality, dataset)  # or it is not complete
            for key, value in quantities(matrix, {}, metrics).items():
                if key in _KEYS:
                    found.setdefault(_KEYS[key], []).append(float(value[0]))
        return found


_KEYS = {Key(q, MEAN, kind): f"{q}/{kind}" for q in QUANTITIES for kind in APART}


def submit(grid: Grid, out: Path, directory: Path, only: Sequence[str] = ()) -> Path:
    """Write the submission of a grid, and return its file.

    Args:
        grid: The grid; its recipes and manifests must be those that its cells were run with.
        out: Directory of the grid.
        directory: Where submissions are kept.
        only: Submit these methods alone; none is all.

    Raises:
        RecipeError: If there is no method of a name in ``only``.
        ManifestError: If a manifest cannot be read.
        RunError: If a cell of the main order has no result or one of another recipe, a result is
            damaged, or does not hold what its samples give.
        DiskError: If the directory cannot be written.
    """
    about = grid.about()
    main = next(iter(about.orders))
    cells = [cell for cell in select(grid, only) if cell.order == main]
    states = [state_of(cell, out) for cell in cells]
    if missing := [state.cell.name for state in states if not state.is_done]:
        raise RunError(
            f"every cell of the order {main!r} must have a result to be submitted, got none of "
            f"{missing[0]} ({len(missing)} missing); run the grid first, or choose methods with "
            "--only"
        )
    analysis = Analysis(about, [load_cell(cell.result(out)) for cell in cells])
    made = Submission(
        name=about.name,
        curriculum=tuple(about.orders[main]),
        seeds=tuple(sorted(about.seeds)),
        metrics={"/".join(place): metric for place, metric in analysis.metrics.items()},
        data=_data(cells[0].recipe, analysis.cells[0]),
        entries=tuple(_entry(analysis, group) for group in analysis.main_groups),
    )
    made = made.model_copy(update={"content_hash": made.hashed()})
    if problem := next(made.problems(), None):
        raise RunError(f"the results in {out} must be whole, got this: {problem}; run the grid")
    file = directory / f"{file_name(made.name)}.json"
    write_json(file, made.model_dump(mode="json"))
    return file


def read_submission(file: Path) -> Submission:
    """Read a submission and check it.

    Raises:
        RunError: If it is none, or something in it does not hold.
    """
    try:
        found = Submission.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunError(
            f"{file} must be a submission, got {reason}; make one with pathweave compare GRID "
            "--out DIR --submit DIR"
        ) from error
    expected = f"{file_name(found.name)}.json"
    problem = next(found.problems(), None)
    if problem is None and file.name != expected:
        problem = f"the file of {found.name!r} must be called {expected}, got {file.name}"
    if problem is not None:
        raise RunError(f"{file}: {problem}; make it again with pathweave compare --submit")
    return found


def _entry(analysis: Analysis, group: tuple[str, str]) -> Entry:
    members, estimates = analysis.groups[group], analysis.estimates[group]
    means = {
        name: SubmittedMean(
            value=estimates[key].value,
            per_seed=estimates[key].per_seed,
            seeds=estimates[key].seeds,
            low=estimates[key].low,
            high=estimates[key].high,
        )
        for key, name in _KEYS.items()
        if key in estimates
    }
    pairs = [pair for member in members for pair in _before_and_after(member)]
    proof = Unchanged(compared=len(pairs), identical=sum(np.array_equal(*pair) for pair in pairs))
    lost = [value for name, mean in means.items() if name[0] == "F" for value in mean.per_seed]
    return Entry(
        method=group[0],
        forgets_nothing=bool(lost) and not any(lost) and proof.compared == proof.identical,
        proof=proof,
        cells=tuple(
            SubmittedCell(
                **cell.result.model_dump(include={"seed", "recipe_hash", "samples", "versions"}),
                trained=max(stage.trained for stage in _later(cell)),
                scores={s.key: score for s, _, score in cell.result.scores() if s.after},
            )
            for cell in members
        ),
        means=means,
    )


def _later(cell: LoadedCell) -> list[StageResults]:
    """Return the stages after the first, which makes the base that all methods start from."""
    stages = cell.result.results.stages
    return stages[1:] or stages


def _before_and_after(cell: LoadedCell) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what samples got right after their modality was learnt, and after a later stage."""
    for scored, later in cell.statistics.items():
        first = scored._replace(after=scored.modality)
        if scored.after not in (None, scored.modality) and first in cell.statistics:
            yield cell.statistics[first], later


def _data(recipe: Recipe, cell: LoadedCell) -> dict[str, str]:
    """Return the hashes of what all cells were trained and scored with."""
    last = recipe.curriculum[-1]
    scored = {key: Scored.parse(key) for key in cell.result.ids}
    return {
        f"{each.modality}/scored/{each.dataset}": cell.result.ids[key]
        for key, each in scored.items()
        if each.after == last
    } | {
        f"{name}/{use}/{dataset}": manifest_sha256(Path(data.manifest))
        for name in recipe.curriculum
        for use, sets in (
            ("train", recipe.modalities[name].train),
            ("test", recipe.modalities[name].test),
        )
        for dataset, data in sets.items()
    }


def _is_sound(mean: SubmittedMean) -> bool:
    """Return whether a mean and its interval over seeds are those of its values by seed."""
    values = np.array(mean.per_seed)
    if not math.isclose(mean.value, float(values.mean()), rel_tol=1e-9, abs_tol=1e-9):
        return False
    if len(values) < 2 or mean.seeds is None:
        return mean.seeds is None and len(values) < 2
    expected = half_width(float(values.var(ddof=1)) / len(values), len(values) - 1)
    return math.isclose(mean.seeds, expected, rel_tol=1e-6, abs_tol=1e-9)
