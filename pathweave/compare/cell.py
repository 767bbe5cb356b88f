"""The result of a cell: a small JSON file, and beside it what each sample contributed.

NAME.json           scores, parameters, time, memory, gate usage, versions; for people and git
NAME.safetensors    statistics of every scored sample, for intervals and paired differences

The second holds, for each test set after each stage (and for whole test sets after the last), the
numbers of which the metric is a function of the sums, and a number for the thing that each sample
shows. With both the report needs neither the runs nor the data sets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pathweave import __version__
from pathweave.compare.grid import Cell, recipe_hash
from pathweave.compare.sessions import sessions
from pathweave.errors import RunError
from pathweave.evaluate.results import Results
from pathweave.evaluate.samples import load_answers
from pathweave.metrics.bootstrap import Statistics
from pathweave.runs.path_directory import versions
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import sha256_bytes, sha256_file, write_json
from pathweave.storage.tensors import write_tensors

_AGAIN = "run the grid again (a finished run is not trained again)"


class Scored(NamedTuple):
    """A test set scored after a stage; ``after`` is None for the whole set after the last."""

    after: str | None
    modality: str
    dataset: str

    @property
    def key(self) -> str:
        """Return the name of the statistics in a file."""
        kind = "whole" if self.after is None else f"after-{self.after}"
        return f"{kind}|{self.modality}|{self.dataset}"

    @property
    def objects(self) -> str:
        """Return the name of the things shown in a file: the same ones after every stage."""
        kind = "whole" if self.after is None else "stages"
        return f"objects|{kind}|{self.modality}|{self.dataset}"

    @classmethod
    def parse(cls, key: str) -> "Scored":
        """Return what the name of statistics stands for."""
        kind, modality, dataset = key.split("|", 2)
        return cls(None if kind == "whole" else kind.removeprefix("after-"), modality, dataset)


class CellResult(BaseModel, extra="forbid"):
    """What is kept of a cell.

    Args:
        format: Version of the file.
        method: Name of the method in the grid.
        order: Name of the order.
        seed: Seed.
        recipe_hash: Hash of all that decided the result, of ``declaration.recipe_hash``.
        results: The results of the run.
        gate_usage: Mean weight of each expert, by path.
        seconds: Wall-clock time of the cell over all sessions, scoring included; without the
            first stage where that was shared.
        shared_seconds: Wall-clock time of the shared first stage, 0 where it was not shared.
        peak_memory_bytes: Largest resident memory of any of its processes.
        versions: Versions of what computed.
        ids: Hash of the ids of the scored samples, by key of the statistics.
        samples: SHA-256 of the file beside it.
    """

    format: Literal[1] = 1
    method: str
    order: str
    seed: int
    recipe_hash: str
    results: Results
    gate_usage: dict[str, dict[str, float]]
    seconds: float
    shared_seconds: float = 0.0
    peak_memory_bytes: int
    versions: dict[str, str]
    ids: dict[str, str]
    samples: str

    def scores(self) -> Iterator[tuple[Scored, str, float]]:
        """Yield everything that was scored, with its metric and its score."""
        curriculum = self.results.curriculum
        for stage, modality, info, score in self.results.scored():
            yield Scored(curriculum[stage], modality, info.name), info.metric, score
        for modality, info in self.results.columns:
            if info.whole is not None:
                yield Scored(None, modality, info.name), info.metric, info.whole


@dataclass(frozen=True, eq=False)
class LoadedCell:
    """A result and the statistics of its samples.

    Attributes:
        result: The result.
        statistics: Statistics of the samples, by test set and stage.
        objects: The things that samples show, by ``Scored.objects``.
        file: Where it was read from.
    """

    result: CellResult
    statistics: dict[Scored, Statistics]
    objects: dict[str, Int[np.ndarray, " samples"]]
    file: Path


def record(cell: Cell, out: Path) -> CellResult:
    """Write the result of a cell whose run is finished, and return it.

    Args:
        cell: The cell.
        out: Directory of the grid.

    Raises:
        RunError: If the run's results or answers are missing or damaged.
        ManifestError: If a manifest cannot be read.
        DiskError: If the directory cannot be written.
    """
    run = RunDirectory(cell.directory(out))
    tensors: dict[str, Tensor] = {}
    ids: dict[str, str] = {}
    for position, name in enumerate(cell.recipe.curriculum):
        for dataset, test_set in cell.recipe.modalities[name].test.items():
            whole = run.whole_predictions(name, dataset)
            for after in (*cell.recipe.curriculum[position:], None):
                scored = Scored(after, name, dataset)
                file = run.stage_predictions(after, name, dataset) if after else whole
                if file.is_file():
                    listed, found = load_answers(file, test_set)
                    tensors[scored.key] = found["statistics"]
                    tensors[scored.objects] = found["objects"]
                    ids[scored.key] = sha256_bytes("\n".join(listed).encode())
    results = Results.load(run.results)
    result = CellResult(
        method=cell.method,
        order=cell.order,
        seed=cell.seed,
        recipe_hash=recipe_hash(cell.recipe),
        results=results.model_copy(update={"gate_usage": None}),
        gate_usage=results.gate_usage or {},
        **sessions(run.log),
        versions={**versions(), "pathweave": __version__},
        ids=ids,
        samples="",
    )
    save_cell(result, tensors, cell.result(out))
    return result


def save_cell(result: CellResult, tensors: dict[str, Tensor], file: Path) -> None:
    """Write a result, the statistics first, so that a result is never without them.

    Args:
        result: The result; its ``samples`` is filled in.
        tensors: The statistics and the things shown, by ``Scored.key`` and ``Scored.objects``.
        file: The JSON file.

    Raises:
        DiskError: If the directory cannot be written.
    """
    beside = file.with_suffix(".safetensors")
    write_tensors(beside, tensors)
    kept = result.model_copy(update={"samples": sha256_file(beside)})
    write_json(file, kept.model_dump(exclude_none=True))


def load_result(file: Path) -> CellResult:
    """Read a result that ``save_cell`` wrote.

    Raises:
        RunError: If the file does not hold one.
    """
    try:
        return CellResult.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(
            f"{file} must hold the result of a cell, got {' '.join(str(error).split())[:120]}; "
            f"remove it and {_AGAIN}"
        ) from error


def load_cell(file: Path) -> LoadedCell:
    """Read a result and the statistics that belong to it.

    Raises:
        RunError: If one is missing or damaged, or the statistics are of another result.
    """
    result, beside = load_result(file), file.with_suffix(".safetensors")
    try:
        if (found := sha256_file(beside)) != result.samples:
            raise ValueError(found)
        tensors = load_file(beside)
    except (OSError, ValueError, SafetensorError) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"{beside} must be the file that was written with {file.name} (sha256 "
            f"{result.samples[:12]}), got {got[:40]}; copy both again, or remove {file.name} and "
            f"{_AGAIN}"
        ) from error
    scored = [Scored.parse(key) for key in tensors if not key.startswith("objects|")]
    statistics = {each: tensors[each.key].double().numpy() for each in scored}
    objects = {each.objects: tensors[each.objects].numpy() for each in scored}
    return LoadedCell(result, statistics, objects, file)
