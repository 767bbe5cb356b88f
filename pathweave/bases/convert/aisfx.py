"""aiSFX: a training checkpoint becomes the safetensors of its embedding network."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathweave.bases.convert.tensors import write_model

_PREFIX = "embedding_net."


def convert_aisfx(source: Path, out: Path) -> None:
    """Convert ``source/model.pth`` to ``out/model.safetensors`` without the classifier heads."""
    # The checkpoint is a pair (weights, {data set: (index, number of classes)}) whose counts are
    # NumPy scalars, which a weights-only load refuses. Full unpickling would run whatever code the
    # file names, so exactly the constructors of such scalars are allowed; NumPy 1 and 2 spell the
    # first one differently.
    make_scalar = np.int64(0).__reduce__()[0]
    allowed: list[Any] = [
        make_scalar,
        (make_scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Int64DType,
    ]
    with torch.serialization.safe_globals(allowed):
        weights, _ = torch.load(source / "model.pth", map_location="cpu", weights_only=True)
    kept = {
        name.removeprefix(_PREFIX): value
        for name, value in weights.items()
        if name.startswith(_PREFIX) and "num_batches_tracked" not in name
    }
    write_model(out / "model.safetensors", kept)
