"""From the results of a grid to estimates with their uncertainty, and paired differences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, ValidationError
from torch import Tensor

from pathweave.compare.cell import (
    CellResult,
    load_cell,
    load_samples,
    objects_key,
    stage_key,
    whole_key,
)
from pathweave.compare.draws import Column, draw_scores
from pathweave.compare.quantities import (
    FORGETTING,
    MEAN,
    MIXED,
    TRANSFER,
    WHOLE,
    CellScores,
    Key,
    kind_of,
    quantities,
)
from pathweave.compare.run import ABOUT
from pathweave.compare.uncertainty import Difference, Estimate, difference, estimate
from pathweave.errors import RunError
from pathweave.evaluate.metrics import METRICS


class About(BaseModel, extra="forbid"):
    """What a report knows of a grid besides the results; of ``Grid.about``."""

    name: str
    reference: str
    methods: list[str]
    orders: dict[str, list[str]]
    seeds: list[int]
    num_cells: int


@dataclass(frozen=True)
class Loaded:
    """A result and the statistics of its samples.

    Attributes:
        result: The result.
        tensors: Statistics of the samples, by key.
        file: Where it was read from.
    """

    result: CellResult
    tensors: dict[str, Tensor]
    file: Path


Group = tuple[str, str]
"""Method and order: the cells that differ in the seed alone."""


class Analysis:
    """What the results of a grid say.

    Args:
        about: The grid.
        cells: The results that are there.
    """

    def __init__(self, about: About, cells: list[Loaded]) -> None:
        self.about = about
        self.cells = cells
        self.main = next(iter(about.orders))
        self._check_samples()

    @cached_property
    def groups(self) -> dict[Group, list[Loaded]]:
        """Return the cells of each method and order, by seed, as the grid lists them."""
        listed = [(m, o) for o in self.about.orders for m in self.about.methods]
        found: dict[Group, list[Loaded]] = {}
        for group in listed:
            members = [c for c in self.cells if (c.result.method, c.result.order) == group]
            if members:
                found[group] = sorted(members, key=lambda cell: cell.result.seed)
        return found

    @property
    def modalities(self) -> list[str]:
        """Return all modalities, those of the main order first."""
        return list(dict.fromkeys(name for order in self.about.orders.values() for name in order))

    @cached_property
    def estimates(self) -> dict[Group, dict[Key, Estimate]]:
        """Return every number with its uncertainty, where all seeds of a group have it."""
        return {
            group: {
                key: self._estimate(key, [self._quantities[id(cell)][key] for cell in members])
                for key in self._common(members)
            }
            for group, members in self.groups.items()
        }

    @cached_property
    def differences(self) -> dict[Group, dict[Key, Difference]]:
        """Return every number minus that of the reference, paired by order, seed and sample."""
        found = {}
        for (method, order), members in self.groups.items():
            reference = self.groups.get((self.about.reference, order), [])
            others = {cell.result.seed: cell for cell in reference}
            pairs = [(c, others[c.result.seed]) for c in members if c.result.seed in others]
            if method != self.about.reference and pairs:
                found[method, order] = self._compare(pairs)
        return found

    def other_bases(self) -> dict[int, list[str]]:
        """Return by seed the methods that did not start from the reference's first stage.

        Cells that were run together share it. One trained again on another machine differs, which
        shows in what its samples got; then training is not paired.
        """
        first = self.about.orders[self.main][0]
        prefix = stage_key(first, first, "")
        reference = self.groups.get((self.about.reference, self.main), [])
        bases = {cell.result.seed: _starting(cell, prefix) for cell in reference}
        found: dict[int, list[str]] = {}
        for (method, order), members in self.groups.items():
            for cell in members if order == self.main else ():
                seed = cell.result.seed
                if seed in bases and not _equal(bases[seed], _starting(cell, prefix)):
                    found.setdefault(seed, []).append(method)
        return found

    def _compare(self, pairs: list[tuple[Loaded, Loaded]]) -> dict[Key, Difference]:
        keys = self._common([cell for pair in pairs for cell in pair])
        return {
            key: self._difference(
                key,
                [
                    self._quantities[id(own)][key] - self._quantities[id(other)][key]
                    for own, other in pairs
                ],
            )
            for key in keys
        }

    def _common(self, members: list[Loaded]) -> list[Key]:
        first, *others = [self._quantities[id(cell)] for cell in members]
        return [key for key in first if all(key in other for other in others)]

    def _estimate(self, key: Key, values: list[Float[np.ndarray, " draws"]]) -> Estimate:
        return estimate(np.stack(values), self._num_objects(key))

    def _difference(self, key: Key, values: list[Float[np.ndarray, " draws"]]) -> Difference:
        return difference(np.stack(values), self._num_objects(key))

    def _num_objects(self, key: Key) -> int:
        """Return how many things the samples behind a number show."""
        wanted = self._behind(key)
        prefix = f"objects|{WHOLE if key.quantity == WHOLE else 'stages'}|"
        things = {
            (modality, int(thing))
            for (modality, dataset), metric in self._metrics.items()
            if modality in wanted and key.kind in (MIXED, kind_of(metric))
            for thing in self._objects.get(f"{prefix}{modality}|{dataset}", ())
        }
        return len(things)

    def _behind(self, key: Key) -> Sequence[str]:
        """Return the modalities whose samples a number rests on, in the main order."""
        names = self.modalities
        if key.quantity == FORGETTING:  # what was learnt before loses
            return names[:-1] if key.modality == MEAN else names[: names.index(key.modality)]
        if key.modality != MEAN:
            return [key.modality]
        return names[1:] if key.quantity == TRANSFER else names

    @cached_property
    def _metrics(self) -> dict[tuple[str, str], str]:
        return {
            (modality, dataset.name): dataset.metric
            for cell in self.cells
            for modality, datasets in cell.result.results.datasets.items()
            for dataset in datasets
        }

    @cached_property
    def _objects(self) -> dict[str, Int[np.ndarray, " samples"]]:
        return {
            key: tensor.numpy()
            for cell in self.cells
            for key, tensor in cell.tensors.items()
            if key.startswith("objects|")
        }

    @cached_property
    def _quantities(self) -> dict[int, dict[Key, Float[np.ndarray, " draws"]]]:
        drawn = dict(self._drawn())
        return {id(cell): quantities(self._scores(cell, drawn)) for cell in self.cells}

    def _drawn(self) -> Iterator[tuple[tuple[int, str], Float[np.ndarray, " draws"]]]:
        """Return the score of every cell on every resample, by cell and key of the statistics."""
        for position, modality in enumerate(self.modalities):
            for kind in ("stages", WHOLE):
                prefix = f"objects|{kind}|{modality}|"
                places = [
                    (cell, key)
                    for cell in self.cells
                    for key in cell.tensors
                    if not key.startswith("objects|") and objects_key(key).startswith(prefix)
                ]
                columns = [_column(cell, key, self._metrics) for cell, key in places]
                objects = {
                    key.removeprefix(prefix): own
                    for key, own in self._objects.items()
                    if key.startswith(prefix)
                }
                # What different modalities show is drawn independently.
                scores = draw_scores(columns, objects, seed=position) if columns else []
                for (cell, key), score in zip(places, scores, strict=True):
                    yield (id(cell), key), score

    def _scores(
        self, cell: Loaded, drawn: dict[tuple[int, str], Float[np.ndarray, " draws"]]
    ) -> CellScores:
        results = cell.result.results
        matrix = results.matrix
        scores, whole = {}, {}
        for modality, info in results.columns:
            for stage, after in enumerate(results.curriculum):
                if matrix.has(stage, modality, info.name):
                    exact = matrix.score(stage, modality, info.name)
                    on_draws = drawn.get((id(cell), stage_key(after, modality, info.name)))
                    scores[stage, modality, info.name] = _with(exact, on_draws, cell)
            if info.whole is not None:
                on_draws = drawn.get((id(cell), whole_key(modality, info.name)))
                whole[modality, info.name] = _with(info.whole, on_draws, cell)
        return CellScores(results.curriculum, self._metrics, scores, whole)

    def _check_samples(self) -> None:
        """Refuse cells that were scored on different samples or by different metrics.

        Raises:
            RunError: If there are such.
        """
        for cell in self.cells:
            for modality, info in cell.result.results.columns:
                metric = self._metrics[modality, info.name]
                if info.metric != metric or metric not in METRICS:
                    raise RunError(
                        f"{cell.file} must be scored by the same known metric on {modality}/"
                        f"{info.name} as the other results, got {info.metric!r} and {metric!r}; "
                        "run the cells with one metric"
                    )
        first: dict[str, Loaded] = {}
        for cell in self.cells:
            for key, found in cell.result.ids.items():
                place = objects_key(key)
                other = first.setdefault(place, cell)
                expected = next(
                    known for k, known in other.result.ids.items() if objects_key(k) == place
                )
                if found != expected:
                    _, kind, modality, dataset = place.split("|", 3)
                    raise RunError(
                        f"{cell.file} and {other.file} must have been scored on the same samples "
                        f"of {modality}/{dataset} ({kind}), got others; run them with the same "
                        "evaluation.subset and data"
                    )


def _starting(cell: Loaded, prefix: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in cell.tensors.items() if key.startswith(prefix)}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


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
    files = [file for file in sorted(results.glob("*.json")) if file.name != ABOUT]
    if not files:
        raise RunError(
            f"{results} must hold the result of at least one cell, got none; run the grid first"
        )
    cells = []
    for file in files:
        result = load_cell(file)
        cells.append(Loaded(result, load_samples(result, file), file))
    _check_known(about, cells)
    return Analysis(about, cells)


def _check_known(about: About, cells: list[Loaded]) -> None:
    places: dict[tuple[str, str, int], Loaded] = {}
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


def _column(cell: Loaded, key: str, metrics: dict[tuple[str, str], str]) -> Column:
    _, modality, dataset = key.split("|", 2)
    metric = METRICS[metrics[modality, dataset]]
    return Column(dataset, cell.tensors[key].double().numpy(), metric.combine)


def _with(
    exact: float, drawn: Float[np.ndarray, " draws"] | None, cell: Loaded
) -> Float[np.ndarray, " draws"]:
    """Return the draws with the stored score first, which has not been rounded.

    Raises:
        RunError: If the statistics do not give the stored score.
    """
    if drawn is None or not np.isclose(exact, drawn[0], rtol=1e-4, atol=1e-3):
        given = "nothing" if drawn is None else drawn[0]
        raise RunError(
            f"{cell.file} must hold the scores that its samples give, got {exact} where they give "
            f"{given}; remove it and run the grid again (a finished run is not trained again)"
        )
    return np.concatenate([[exact], drawn[1:]])
