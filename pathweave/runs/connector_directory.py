"""The connector after a stage that changed it for all paths, as a directory of a run.

connector.json         format, fingerprint of the base with it, hashes of the other files
connector.safetensors  Q-Former, projector, and what the paths learnt before have for themselves
carried.safetensors    what the method hands on to the next stage, if anything
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from pathweave.errors import BaseMismatchError, PathError
from pathweave.storage.atomic import new_directory, recover_directory, sha256_file, write_json
from pathweave.model.pathweave import PathWeave
from pathweave.storage.tensors import write_tensors

FORMAT = 1
DESCRIPTION, TENSORS, CARRIED = "connector.json", "connector.safetensors", "carried.safetensors"


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
            own = path.state_dict()
            tensors |= {f"paths.{path.spec.name}.{name}": tensor for name, tensor in own.items()}
    with new_directory(directory) as temporary:
        write_tensors(temporary / TENSORS, tensors)
        if carried:
            write_tensors(temporary / CARRIED, carried)
        files = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        about = {"format": FORMAT, "fingerprint": model.base.fingerprint(), "files": files}
        write_json(temporary / DESCRIPTION, about)


def load_shared(model: PathWeave, directory: Path) -> dict[str, dict[str, Tensor]]:
    """Load a saved connector into a model and return the tensors of earlier paths, by path.

    Raises:
        PathError: If the directory is incomplete or damaged, or of another kind of base.
        BaseMismatchError: If the language model is another.
    """
    about, tensors = _read(directory)
    paths: dict[str, dict[str, Tensor]] = {}
    own: dict[str, dict[str, Tensor]] = {"qformer": {}, "projector": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "paths":
            path, _, rest = rest.partition(".")
            paths.setdefault(path, {})[rest] = tensor
        else:
            own.setdefault(part, {})[rest] = tensor
    try:
        model.qformer.load_state_dict(own["qformer"])
        model.projector.load_state_dict(own["projector"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise PathError(f"{directory} must fit base {model.base.kind!r}, got: {reason}") from error
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
    file = directory / CARRIED
    return load_file(file) if file.is_file() else {}


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    recover_directory(directory)
    try:
        about = json.loads((directory / DESCRIPTION).read_text())
        files, made, _ = about["files"], about["format"], about["fingerprint"]
        damaged = [name for name, hash_ in files.items() if sha256_file(directory / name) != hash_]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PathError(
            f"{directory} must hold a connector ({DESCRIPTION}, {TENSORS}), got {error!r}; copy "
            "the whole run again"
        ) from error
    if made != FORMAT:
        raise PathError(
            f"{directory} must have format {FORMAT}, got {made}; install a newer version"
        )
    if damaged:
        raise PathError(
            f"{directory / damaged[0]} must have the sha256 in {DESCRIPTION}, got another: it is "
            "damaged; copy the whole run again"
        )
    return about, load_file(directory / TENSORS)
