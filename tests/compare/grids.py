"""Tiny grids: files of grids that run in seconds, and hand-made results."""

import json
from pathlib import Path

import numpy as np
import torch

from pathweave.compare.cell import CellResult, Scored, save_cell
from pathweave.evaluate.results import DatasetInfo, Environment, Results, StageResults
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.storage.atomic import write_json

METHODS = {"pathweave": {}, "adapters": {"method.name": "adapters"}}


def write_grid(beside: Path, **changes) -> Path:
    """A grid beside a recipe, of two methods and two seeds unless told otherwise."""
    tree = {
        "name": "tiny grid",
        "recipe": beside.name,
        "seeds": [0, 1],
        "methods": METHODS,
        "orders": {"main": ["sight", "sound"]},
        **changes,
    }
    file = beside.parent / "grid.yaml"
    file.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}), encoding="utf-8")
    return file


def write_about(directory: Path, curriculum=("see", "hear"), **changes) -> None:
    """The description of a hand-made grid."""
    about = {
        "name": "hand-made",
        "reference": "ours",
        "methods": ["ours", "theirs"],
        "orders": {"main": list(curriculum)},
        "seeds": [0, 1],
        "num_cells": 4,
        **changes,
    }
    write_json(directory / "results" / "grid.json", about)


def write_cell(
    directory: Path,
    answers: dict[tuple[str, str], list[float]],
    whole: dict[str, list[float]] | None = None,
    *,
    method: str = "ours",
    order: str = "main",
    seed: int = 0,
    curriculum=("see", "hear"),
    objects: dict[str, list[int]] | None = None,
    gate_usage=None,
    metric: str = "exact_match",
    captions: dict[tuple[str, str], list[float]] | None = None,
) -> Path:
    """A result whose scores are means of what each sample got.

    Args:
        directory: Of the grid.
        answers: What each sample of ``qa`` got, by stage and modality.
        whole: The same of the whole sets after the last stage.
        objects: The things that samples show; each its own unless told.
        captions: What each sample of ``caption`` (CIDEr-D) got.
    """
    matrix = ScoreMatrix(curriculum)
    tensors, ids = {}, {}

    def keep(scored, values):
        tensors[scored.key] = torch.tensor(values).float()[:, None]
        things = (objects or {}).get(scored.modality) or range(len(values))
        tensors[scored.objects] = torch.tensor(list(things)[: len(values)])
        ids[scored.key] = f"{len(values)} samples"

    sets = {"qa": answers, **({"caption": captions} if captions else {})}
    for dataset, scored in sets.items():
        for (after, modality), values in scored.items():
            keep(Scored(after, modality, dataset), values)
            stage = list(curriculum).index(after)
            matrix.add(stage, modality, dataset, float(np.mean(values)))
    for modality, values in (whole or {}).items():
        keep(Scored(None, modality, "qa"), values)
    datasets = {
        modality: [
            DatasetInfo(
                name=dataset,
                metric=metric if dataset == "qa" else "cider_d",
                whole=float(np.mean(whole[modality])) if whole and dataset == "qa" else None,
            )
            for dataset in sets
        ]
        for modality in curriculum
    }
    stages = [
        StageResults(
            modality=modality,
            other=100,
            adapters=50 * i,
            full_tuning=1000,
            seconds=60.0,
            num_bytes=10,
        )
        for i, modality in enumerate(curriculum)
    ]
    results = Results(
        recipe="demo",
        method=method,
        curriculum=list(curriculum),
        datasets=datasets,
        scores=matrix.as_dict(),
        stages=stages,
        environment=Environment(python="3.11", torch="2.13", num_cpus=2, dtype="bfloat16"),
    )
    cell = CellResult(
        method=method,
        order=order,
        seed=seed,
        recipe_hash="0" * 64,
        results=results,
        gate_usage=gate_usage or {},
        seconds=120.0,
        peak_memory_bytes=2_500_000_000,
        versions={"python": "3.11"},
        ids=ids,
        samples="",
    )
    file = directory / "results" / f"{method}-{order}-seed{seed}.json"
    save_cell(cell, tensors, file)
    return file
