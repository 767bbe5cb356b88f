"""Results of a run: one JSON file, read by the tables and the picture."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pathweave.errors import RunError
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.storage.atomic import write_json


class DatasetInfo(BaseModel, extra="forbid"):
    """A test set and the scores it is read against.

    Args:
        name: Name of the test set, unique in its modality.
        metric: What the scores are, a name of ``pathweave.metrics.METRICS``.
        tokenizer: How texts were cut into words; None if they were compared whole.
        num_samples: How many samples were scored.
        majority: Score of always giving the most frequent answer of the training set.
        text_only: Score of the model without the medium.
        probe: Score of a linear probe on the encoder's features.
        whole: Score of the whole test set after the last stage, where the matrix has a subset.
        num_whole: Samples of the whole test set.
        low: Lower end of the interval of 95 % confidence around ``whole``, over the objects shown.
        high: Upper end.
        num_objects: Things the whole test set shows.
        num_total: Samples of the test set as published, also those that could not be used.
    """

    name: str
    metric: str
    tokenizer: str | None = None
    num_samples: int | None = None
    majority: float | None = None
    text_only: float | None = None
    probe: float | None = None
    whole: float | None = None
    num_whole: int | None = None
    low: float | None = None
    high: float | None = None
    num_objects: int | None = None
    num_total: int | None = None

    @property
    def coverage(self) -> str | None:
        """Return how much of the set was scored, if it was not all of it."""
        if self.num_whole is None or self.num_total in (None, self.num_whole):
            return None
        return f"{self.num_whole:,} of {self.num_total:,}"


class StageResults(BaseModel, extra="forbid"):
    """What one stage trained and cost.

    Args:
        modality: What was learnt.
        adapters: Trained parameters in adapters.
        in_adapters: Trained parameters in in-adapters.
        gates: Trained parameters in gates.
        other: All other trained parameters: queries, input norm and projection, projector.
        full_tuning: Parameters that full tuning of the connector, or of all of a vision LLM, would
            train at this stage.
        seconds: Wall-clock time of training, without evaluation.
        num_bytes: Size of the saved path on disk.
        medium_use: Loss of training samples, in nats per token of the answer, with their own
            medium (``loss``), with none (``blank``) and with that of another sample (``swapped``).
    """

    modality: str
    adapters: int = Field(default=0, ge=0)
    in_adapters: int = Field(default=0, ge=0)
    gates: int = Field(default=0, ge=0)
    other: int = Field(default=0, ge=0)
    full_tuning: int = Field(gt=0)
    seconds: float | None = None
    num_bytes: int | None = None
    medium_use: dict[str, float] | None = None

    @property
    def trained(self) -> int:
        """Return the number of trained parameters."""
        return self.adapters + self.in_adapters + self.gates + self.other

    @property
    def share(self) -> float:
        """Return the trained parameters as a share of full tuning, in percent."""
        return 100.0 * self.trained / self.full_tuning


class Environment(BaseModel, extra="allow"):
    """Where and how a run was made; further fields are kept.

    Args:
        python: Version of Python.
        torch: Version of PyTorch.
        num_cpus: Processors the run could use.
        dtype: Number format of the language model.
        peak_memory_bytes: Largest resident memory of any of its sessions; 0 where it is not known.
        seconds: Wall-clock time of all sessions by what it was spent on: ``train``, ``score``, and
            ``encode`` media or read what is kept of them.
        padding: Share of padding in what the language model read in the run's own steps.
    """

    python: str
    torch: str
    num_cpus: int
    dtype: str
    peak_memory_bytes: int = 0
    seconds: dict[str, float] | None = None
    padding: float | None = None


class Results(BaseModel, extra="forbid"):
    """Everything the report shows.

    Args:
        recipe: Name of the recipe.
        method: Name of the method.
        curriculum: Names of the modalities in the order in which they are learnt.
        datasets: Test sets of each modality.
        scores: The score matrix, as ``ScoreMatrix.as_dict`` gives it.
        stages: One entry for each stage of the curriculum that was trained.
        gate_usage: Mean weight of each expert, by path with gates, on the inputs kept with it.
        environment: Where the run was made.

    Example:
        >>> matrix = ScoreMatrix(["see"])
        >>> matrix.add(0, "see", "qa", 80.0)
        >>> results = Results(
        ...     recipe="demo", method="pathweave", curriculum=["see"],
        ...     datasets={"see": [DatasetInfo(name="qa", metric="exact_match")]},
        ...     scores=matrix.as_dict(), stages=[])
        >>> results.matrix.transfer(0)
        80.0
    """

    recipe: str
    method: str
    curriculum: list[str]
    datasets: dict[str, list[DatasetInfo]]
    scores: dict[str, Any]
    stages: list[StageResults]
    gate_usage: dict[str, dict[str, float]] | None = None
    environment: Environment | None = None

    @property
    def matrix(self) -> "ScoreMatrix[float]":
        """Return the score matrix."""
        return ScoreMatrix.from_dict(self.scores)

    @property
    def columns(self) -> list[tuple[str, DatasetInfo]]:
        """Return modality and test set of each column of the score matrix, in order."""
        return [(m, dataset) for m in self.curriculum for dataset in self.datasets.get(m, [])]

    def scored(self) -> Iterator[tuple[int, str, DatasetInfo, float]]:
        """Yield stage, modality, test set and score of all that was scored, stage by stage."""
        matrix = self.matrix
        for stage, (modality, dataset) in product(range(len(self.curriculum)), self.columns):
            if matrix.has(stage, modality, dataset.name):
                yield stage, modality, dataset, matrix.score(stage, modality, dataset.name)

    @property
    def finished_stages(self) -> list[int]:
        """Return the stages after which every modality learnt so far has all its scores."""
        matrix, names = self.matrix, self.curriculum

        def is_scored(stage: int) -> bool:
            sets = [(m, d.name) for m, d in self.columns if m in names[: stage + 1]]
            return all(matrix.has(stage, *test_set) for test_set in sets)

        return [i for i, name in enumerate(names) if self.datasets.get(name) and is_scored(i)]

    def save(self, path: Path) -> None:
        """Write the results as JSON, atomically.

        Raises:
            DiskError: If the disk is full or the directory cannot be written.
        """
        write_json(path, self.model_dump(exclude_none=True))

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read results that ``save`` wrote.

        Raises:
            RunError: If the file is missing or does not hold results.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(
                f"{path} must hold the results of a run, got {str(error).splitlines()[0]}; "
                "evaluate the run again"
            ) from error
