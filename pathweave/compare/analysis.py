"""Analysis of a grid: from its results to means with their uncertainty, and paired differences."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from pathweave.compare.cell import LoadedCell, Scored, load_cell
from pathweave.compare.grid import ABOUT, About
from pathweave.compare.quantities import MEAN, Draws, Key, Kind, Quantity, kind_of, quantities
from pathweave.compare.uncertainty import SeedMean, mean_over_seeds
from pathweave.errors import RunError
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.metrics import METRICS
from pathweave.metrics.bootstrap import Column, draw_scores
from pathweave.parts import is_own

Group = tuple[str, str]
"""Method and order: the cells that differ in the seed alone."""


class Analysis:
    """What the results of a grid say.

    Args:
        about: The grid.
        cells: The results that are there.

    Attributes:
        main: The order of the main tables.
        modalities: All modalities, those of the main order first.
        groups: The cells of each method and order, by seed, as the grid lists them.
        metrics: The metric of each test set, by modality and name.

    Raises:
        RunError: If cells were scored on different samples or by different metrics.
    """

    def __init__(self, about: About, cells: Sequence[LoadedCell]) -> None:
        self.about = about
        self.cells = cells
        self.main = next(iter(about.orders))
        self.modalities = list(dict.fromkeys(n for order in about.orders.values() for n in order))
        listed = [(method, order) for order in about.orders for method in about.methods]
        found: dict[Group, list[LoadedCell]] = {group: [] for group in listed}
        for cell in sorted(cells, key=lambda cell: cell.result.seed):
            found[cell.result.method, cell.result.order].append(cell)
        self.groups = {group: members for group, members in found.items() if members}
        self.metrics = _metrics(cells)
        check_samples(cells)
        self._objects = {key: own for cell in cells for key, own in cell.objects.items()}

    @property
    def main_groups(self) -> list[Group]:
        """Return the groups of the main order."""
        return [group for group in self.groups if group[1] == self.main]

    @cached_property
    def estimates(self) -> dict[Group, dict[Key, SeedMean]]:
        """Return every number with its uncertainty, where all seeds of a group have it.

        Raises:
            RunError: If a cell's samples do not give the scores that it holds.
        """
        return {
            group: self._means([self._quantities[cell] for cell in members])
            for group, members in self.groups.items()
        }

    @cached_property
    def differences(self) -> dict[Group, dict[Key, SeedMean]]:
        """Return every number minus that of the reference, paired by order, seed and sample."""
        found = {}
        for (method, order), members in self.groups.items():
            reference = self.groups.get((self.about.reference, order), [])
            others = {cell.result.seed: self._quantities[cell] for cell in reference}
            apart = []
            for cell in members if method != self.about.reference else ():
                own, other = self._quantities[cell], others.get(cell.result.seed)
                if other is not None:
                    apart.append({key: own[key] - other[key] for key in own if key in other})
            if apart:
                found[method, order] = self._means(apart)
        return found

    def scores(self, group: Group) -> dict[Scored, list[float]]:
        """Return what the cells of a group scored, one score a seed."""
        found: dict[Scored, list[float]] = {}
        for cell in self.groups[group]:
            for scored, _, score in cell.result.scores():
                found.setdefault(scored, []).append(score)
        return found

    def other_bases(self) -> dict[int, list[str]]:
        """Return by seed the methods that did not start from the reference's first stage.

        Cells that were run together share it. One trained again on another machine differs, which
        shows in what its samples got; then training is not paired.
        """
        first = self.about.orders[self.main][0]

        def base(cell: LoadedCell) -> dict[Scored, list[list[float]]]:
            """Return what the samples of the first modality got right after it was learnt."""
            found = cell.statistics.items()
            return {k: own.tolist() for k, own in found if k[:2] == (first, first)}

        reference = self.groups.get((self.about.reference, self.main), [])
        bases = {cell.result.seed: base(cell) for cell in reference}
        others: dict[int, list[str]] = {}
        for cell in (cell for group in self.main_groups for cell in self.groups[group]):
            if bases.get(cell.result.seed, own := base(cell)) != own:
                others.setdefault(cell.result.seed, []).append(cell.result.method)
        return others

    def _means(self, seeds: Sequence[dict[Key, Draws]]) -> dict[Key, SeedMean]:
        """Return the mean over seeds of every number that all of them have."""
        common = [key for key in seeds[0] if all(key in other for other in seeds)]
        return {
            key: mean_over_seeds(np.stack([seed[key] for seed in seeds]), self._num_objects(key))
            for key in common
        }

    def _num_objects(self, key: Key) -> int:
        """Return how many things the samples behind a number show."""
        names = self.modalities  # of which those count whose samples the number rests on
        if key.quantity == Quantity.F:  # what was learnt before loses
            names = names[: -1 if key.modality == MEAN else names.index(key.modality)]
        elif key.modality != MEAN:
            names = [key.modality]
        elif key.quantity == Quantity.T:
            names = names[1:]
        after = None if key.quantity == Quantity.WHOLE else self.main
        shown = {
            (modality, int(thing))
            for (modality, dataset), metric in self.metrics.items()
            if modality in names and key.kind in (Kind.MIXED, kind_of(metric))
            for thing in self._objects.get(Scored(after, modality, dataset).objects, ())
        }
        return len(shown)

    @cached_property
    def _quantities(self) -> dict[LoadedCell, dict[Key, Draws]]:
        drawn, found = dict(self._drawn()), {}
        for cell in self.cells:
            curriculum = cell.result.results.curriculum
            matrix, whole = ScoreMatrix[np.ndarray](curriculum), {}
            for scored, _, exact in cell.result.scores():
                own = drawn.get((cell, scored))
                if own is None or not np.isclose(exact, own[0], rtol=1e-4, atol=1e-3):
                    raise RunError(
                        f"{cell.file} must hold the scores that its samples give, got {exact} "
                        f"where they give {'nothing' if own is None else own[0]}; remove it and "
                        "run the grid again (a finished run is not trained again)"
                    )
                # The stored score has not been rounded.
                own = np.concatenate([[exact], own[1:]])
                if scored.after is None:
                    whole[scored[1:]] = own
                else:
                    matrix.add(curriculum.index(scored.after), *scored[1:], own)
            found[cell] = quantities(matrix, whole, self.metrics)
        return found

    def _drawn(self) -> Iterator[tuple[tuple[LoadedCell, Scored], Draws]]:
        """Yield the scores of every cell on the samples and on every resample.

        All test sets of a modality are drawn together, since questions and captions may show the
        same things, and all cells on one draw, so that every difference is paired.
        """
        for (position, modality), is_whole in product(enumerate(self.modalities), (False, True)):
            columns = {}
            for cell in self.cells:
                for scored, own in cell.statistics.items():
                    if scored.modality == modality and (scored.after is None) == is_whole:
                        combine = METRICS[self.metrics[scored[1:]]].combine
                        things = self._objects[scored.objects].tolist()
                        columns[cell, scored] = Column(own, combine, things)
            # What different modalities show is drawn independently.
            drawn = draw_scores([*columns.values()], seed=position) if columns else []
            yield from zip(columns, drawn, strict=True)


def load_analysis(directory: Path) -> Analysis:
    """Read the results of a grid.

    Args:
        directory: Directory of the grid.

    Raises:
        RunError: If there are none, or a file is missing, damaged or does not fit the others.
    """
    results = directory / "results"
    try:
        about = About.model_validate_json((results / ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(
            f"{results / ABOUT} must describe a grid, got {' '.join(str(error).split())[:120]}; "
            f"give the directory of a grid, or make one with: "
            f"pathweave compare GRID --out {directory}"
        ) from error
    cells = [load_cell(file) for file in sorted(results.glob("*.json")) if file.name != ABOUT]
    if not cells:
        raise RunError(
            f"{results} must hold the result of at least one cell, got none; run the grid first"
        )
    _check_known(about, cells)
    return Analysis(about, cells)


def _check_known(about: About, cells: Sequence[LoadedCell]) -> None:
    places: dict[tuple[str, str, int], LoadedCell] = {}
    for cell in cells:
        result = cell.result
        other = places.setdefault((result.method, result.order, result.seed), cell)
        if other is not cell or result.seed not in about.seeds:
            known = f"{other.file.name} of the same cell" if other is not cell else about.seeds
            raise RunError(
                f"{cell.file} must be the only result of its method and order with its seed, one "
                f"of {ABOUT}'s, got seed {result.seed} beside {known}; move it elsewhere"
            )
        curriculum = about.orders.get(result.order)
        if result.method not in about.methods or curriculum != result.results.curriculum:
            raise RunError(
                f"{cell.file} must be of a method and an order of {ABOUT}, got {result.method!r} "
                f"and {result.order!r} ({', '.join(result.results.curriculum)}); move it elsewhere"
            )


def _metrics(cells: Sequence[LoadedCell]) -> dict[tuple[str, str], str]:
    """Return the metric of each test set by modality and name, the same in all cells."""
    infos = [(cell, *column) for cell in cells for column in cell.result.results.columns]
    metrics = {(name, info.name): info.metric for _, name, info in infos}
    for cell, name, info in infos:
        metric = metrics[name, info.name]
        if info.metric != metric or not (metric in METRICS or is_own(metric)):
            raise RunError(
                f"{cell.file} must be scored by the same known metric on {name}/{info.name} as the "
                f"other results, got {info.metric!r} and {metric!r}; run the cells with one metric"
            )
    return metrics


def check_samples(cells: Sequence[LoadedCell]) -> None:
    """Refuse cells that were scored on different samples.

    Raises:
        RunError: Naming two files and the test set.
    """
    first: dict[str, tuple[LoadedCell, str]] = {}
    for cell in cells:
        for key, found in cell.result.ids.items():
            scored = Scored.parse(key)
            other, expected = first.setdefault(scored.objects, (cell, found))
            if found != expected:
                kind = "whole" if scored.after is None else "stages"
                raise RunError(
                    f"{cell.file} and {other.file} must have been scored on the same samples "
                    f"of {scored.modality}/{scored.dataset} ({kind}), got others; run them with "
                    "the same evaluation.subset and data"
                )
