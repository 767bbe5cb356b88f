"""The recorded Q-Formers of the released code as runs of stage files."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pathweave.nn import QFormer
from pathweave.released import Imported
from pathweave.released.checkpoint import TensorFile, parse_checkpoint
from pathweave.released.importer import assemble
from pathweave.storage.tensors import under
from tests.released.files import GOLDEN, ORDER, seeded

DIM, WIDTH, LLM_DIM, QUERIES, RANK, HEADS = 32, 24, 40, 4, 8, 4


@cache
def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def stage_files(modality: str) -> dict[str, dict[str, Tensor]]:
    """The recorded stage as a whole file, and files of the stages before it.

    A record holds the Q-Former and the adapters of all stages; gates of earlier stages and what is
    around the Q-Former are made up.
    """
    recorded = {
        key.removeprefix("param/"): tensor
        for key, tensor in load(f"qformer_{modality}").items()
        if key.startswith("param/")
    }
    stages = ORDER[: ORDER.index(modality) + 1]
    return {
        stage: _file(recorded, stage, position, own=stage == modality)
        for position, stage in enumerate(stages)
    }


def _file(recorded: dict, stage: str, position: int, own: bool) -> dict[str, Tensor]:
    made = _around(stage)
    for key, tensor in recorded.items():
        name = f"{stage}_Qformer.{key}"
        if own or "gate_adapter" not in key:
            made[name] = tensor
        elif position:
            # Those of the recorded stage have another name and more experts.
            block, gate = key.rsplit(".", 1)
            kind = gate.split("_", 1)[1]
            made[f"{stage}_Qformer.{block}.{stage}_{kind}"] = tensor[:, : position + 1]
    return made


def _around(stage: str) -> dict[str, Tensor]:
    made = {
        f"{stage}_query_tokens": seeded(f"{stage} queries", (1, QUERIES, DIM)),
        f"{stage}_ln.weight": seeded(f"{stage} norm", (WIDTH,)),
        f"{stage}_ln.bias": torch.zeros(WIDTH),
        f"{stage}_llm_proj.weight": seeded("projector", (LLM_DIM, DIM)),
        f"{stage}_llm_proj.bias": seeded("projector bias", (LLM_DIM,)),
    }
    shapes = {
        "scale": (1,),
        "down_proj.weight": (RANK, DIM),
        "down_proj.bias": (RANK,),
        "up_proj.weight": (LLM_DIM, RANK),
        "up_proj.bias": (LLM_DIM,),
    }
    for index in range(len(ORDER)):
        for part, shape in shapes.items():
            key = f"llmProj_adapter_list.{index}.{part}"
            # As in the released code, nothing but depth's list reaches the loss before depth.
            zero = part.startswith("up_proj") and index == 0
            made[f"{stage}_{key}"] = torch.zeros(shape) if zero else seeded(key, shape)
    return made


def released_model(modality: str, quirks: bool) -> tuple[QFormer, Imported]:
    """The recorded stage and its predecessors, read by the importer."""
    read = [TensorFile(Path(f"{name}.pth"), state) for name, state in stage_files(modality).items()]
    imported = assemble([parse_checkpoint(one, quirks, HEADS) for one in read])
    qformer = QFormer(imported.shape).eval()
    qformer.load_state_dict(under(imported.connector, "qformer."))
    return qformer, imported
