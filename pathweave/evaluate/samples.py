"""Statistics of scored samples: what each answer contributes to a score, kept beside the answers.

ANSWERS.jsonl          id and answer of each sample
ANSWERS.safetensors    the numbers of which the metric is a function of the sums, and a number for
                       the object that each sample shows

With these a score can be computed again, and compared with others sample by sample, without the
data set.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pathweave.data.manifest import Manifest
from pathweave.data.messages import Sample
from pathweave.errors import RunError
from pathweave.metrics import METRICS
from pathweave.metrics.bootstrap import Statistics
from pathweave.recipe.schema import TestSet
from pathweave.storage.atomic import write_atomic
from pathweave.storage.tensors import write_tensors


@dataclass(frozen=True)
class Measured:
    """What scored samples contribute to a score.

    Attributes:
        statistics: Numbers of each sample of which the metric is a function of the sums.
        objects: A number for the object that each sample shows, the same in all sets and runs.
    """

    statistics: Statistics
    objects: Int[np.ndarray, " samples"]

    def tensors(self) -> dict[str, Tensor]:
        """Return both as tensors, by name."""
        statistics = torch.from_numpy(np.ascontiguousarray(self.statistics)).float()
        return {"statistics": statistics, "objects": torch.from_numpy(self.objects)}


def measure(samples: Sequence[Sample], answers: Sequence[str], metric: str) -> Measured:
    """Return what samples contribute to a score; one that names no object shows one of its own.

    Raises:
        ManifestError: If there is no sample, or one lacks what the metric needs.
    """
    references = [list(sample.references) or [sample.answer] for sample in samples]
    statistics = METRICS[metric].measure(answers, references, [s.choices for s in samples])
    named = [f"object {s.object}" if s.object else f"sample {s.id}" for s in samples]
    # Numbers from a hash are the same in every run and every test set of an object.
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in named]
    objects = [int.from_bytes(digest, "big", signed=True) for digest in digests]
    return Measured(statistics, np.array(objects))


def save_answers(file: Path, ids: Sequence[str], answers: Sequence[str], found: Measured) -> None:
    """Write answers, one line a sample, and beside them what each contributes to the score.

    Raises:
        DiskError: If the directory cannot be written.
    """
    rows = ({"id": i, "answer": answer} for i, answer in zip(ids, answers, strict=True))
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    # Before the answers, which are then never without them.
    write_tensors(file.with_suffix(".safetensors"), found.tensors())
    write_atomic(file, f"{lines}\n".encode())


def load_answers(file: Path, test_set: TestSet) -> tuple[list[str], dict[str, Tensor]]:
    """Return the ids of answered samples, and ``statistics`` and ``objects`` as tensors.

    Answers that were written without statistics are measured anew.

    Args:
        file: The file of the answers.
        test_set: What was answered.

    Raises:
        RunError: If a file is damaged, or the answers are not to samples of the manifest.
        ManifestError: If the manifest cannot be read.
    """
    beside = file.with_suffix(".safetensors")
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ids, answers = [row["id"] for row in rows], [row["answer"] for row in rows]
        if beside.is_file():
            tensors = load_file(beside)
        else:
            known = {s.id: s for s in Manifest(Path(test_set.manifest), on_error="collect")}
            tensors = measure([known[i] for i in ids], answers, test_set.metric).tensors()
        if len(tensors["statistics"]) != len(ids) or len(tensors["objects"]) != len(ids):
            raise ValueError(f"{len(ids)} answers and {len(tensors['objects'])} statistics")
    except (*(OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError),) as error:
        raise RunError(
            f"{file} must hold answers to samples of the recipe's manifest, and {beside.name} what "
            f"each contributes, got {error!r}; remove scores.json beside predictions/ to score the "
            "run again"
        ) from error
    return ids, tensors
