"""The connector after a stage that changed it for all paths, as a directory of a run.

connector.json         format, fingerprint of the base with it, hashes of the other files
connector.safetensors  Q-Former, projector, and what the paths learnt before have for themselves
carried.safetensors    what the method hands on to the next stage, if anything
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from pathweave.errors import BaseMismatchError
from pathweave.model.pathweave import PathWeave
from pathweave.storage.bundle import Bundle
from pathweave.storage.tensors import load_exactly

TENSORS, CARRIED = "connector.safetensors", "carried.safetensors"
SHARED = Bundle(
    "a connector",
    "connector.json",
    (TENSORS,),
    frozenset({"fingerprint", "files"}),
    remedy="copy the whole run again",
)


def save_shared(
    model: PathWeave, directory: Path, learnt: Collection[str], carried: Mapping[str, Tensor]
) -> None:
    """Write the connector as a stage left it.

    Args:
        model: The model.
        directory: What to write; an existing one is replaced when the new one is complete.
        learnt: Modalities of the stage itself, whose paths have directories of their own to come.
        carried: What the method hands on to the next stage, by name.

    Raises:
        DiskError: If the directory cannot be written.
    """
    tensors = model.base.connector_state()
    for path in model.paths:
        if path.spec.name not in learnt:
            tensors |= path.state_dict(prefix=f"paths.{path.spec.name}.")
    files = {TENSORS: tensors} | ({CARRIED: carried} if carried else {})
    SHARED.write(directory, files, {"fingerprint": model.base.fingerprint()})


def load_shared(model: PathWeave, directory: Path) -> dict[str, dict[str, Tensor]]:
    """Load a saved connector into a model and return the tensors of earlier paths, by path.

    Raises:
        PathError: If the directory is incomplete or damaged, or of another kind of base.
        BaseMismatchError: If the language model is another.
    """
    about, tensors = SHARED.read(directory), SHARED.load(directory, TENSORS)
    paths: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name in [name for name in tensors if name.startswith("paths.")]:
        _, path, rest = name.split(".", 2)
        paths[path][rest] = tensors.pop(name)
    rule = f"{directory} must fit base {model.base.kind!r}"
    load_exactly(model.base.connector, tensors, rule, SHARED.remedy)
    model.base.fresh_projector = False
    found = model.base.fingerprint()
    if about["fingerprint"] != found:
        raise BaseMismatchError(
            f"{directory} must be loaded into base {about['fingerprint'][:12]}..., got base "
            f"{found[:12]}...; load the language model it was trained with"
        )
    return paths


def load_carried(directory: Path) -> dict[str, Tensor]:
    """Return what the method handed on from the stage whose connector this is."""
    return SHARED.load(directory, CARRIED)
