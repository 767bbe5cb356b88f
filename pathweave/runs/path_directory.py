"""The file on disk is the path: a directory of safetensors and JSON, complete in itself.

path.json            format, spec, modality, base fingerprint, predecessors by content hash,
                     training settings, scores, versions, licences, hashes of the other files
path.safetensors     every tensor of the path and no other
proof.safetensors    inputs and outputs recorded when the path was finished (``verify``)
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from pathweave.errors import BaseMismatchError, PathError
from pathweave.model.paths import ModalPath, Paths, PathSpec, matches
from pathweave.nn.kernels import KernelSpec
from pathweave.nn.patches import PatchSpec
from pathweave.storage.bundle import Bundle
from pathweave.storage.tensors import load_exactly

DESCRIPTION, TENSORS, PROOF = "path.json", "path.safetensors", "proof.safetensors"
NEEDED = frozenset({"spec", "content_hash", "base_fingerprint", "predecessors", "files"})
PATH = Bundle("a path", DESCRIPTION, (TENSORS,), NEEDED)


def save_path(
    path: ModalPath,
    paths: Paths,
    directory: Path,
    base_fingerprint: str,
    about: Mapping[str, Any] | None = None,
    proof: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a path so that it can be copied, shared and loaded alone.

    Args:
        path: The path.
        paths: Where its predecessors are.
        directory: What to write; an existing one is replaced when the new one is complete.
        base_fingerprint: Fingerprint of the base it was trained for.
        about: Anything to keep with it: modality, training settings, scores, licences.
        proof: Recorded inputs and outputs.

    Raises:
        DiskError: If the directory cannot be written.
    """
    tensors = {TENSORS: path.state_dict()} | ({} if proof is None else {PROOF: proof})
    # Fields that most paths do not need are left out of the spec there.
    rare = {"own": (), "positions": "none", "columns": None, "patches": None, "scope": "onward"}
    spec = {n: v for n, v in asdict(path.spec).items() if n not in rare or v != rare[n]}
    description = {
        "spec": spec,
        "content_hash": path.content_hash(),
        "base_fingerprint": base_fingerprint,
        "predecessors": {n: paths[n].content_hash() for n in path.spec.predecessors},
        "parameters": path.count(),
        "versions": versions(),
        **(about or {}),
    }
    PATH.write(directory, tensors, description)


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def describe_path(directory: Path) -> dict[str, Any]:
    """Return the description of a saved path, checked for completeness.

    Raises:
        PathError: If the directory is no path, or a file of it is missing or damaged.
    """
    return PATH.read(directory)


def load_path(directory: Path, paths: Paths, base_fingerprint: str) -> ModalPath:
    """Add a saved path to ``paths``.

    Raises:
        BaseMismatchError: If it was made for another base.
        PathError: If it is damaged, or a predecessor is missing or another than it was made with.
    """
    description = describe_path(directory)
    name = description["spec"]["name"]
    if description["base_fingerprint"] != base_fingerprint:
        raise BaseMismatchError(
            f"path {name!r} must be loaded into base {description['base_fingerprint'][:12]}..., "
            f"got base {base_fingerprint[:12]}...; load the base it was trained with"
        )
    for predecessor, expected in description["predecessors"].items():
        if predecessor not in paths:
            raise PathError(
                f"path {name!r} must find its predecessor {predecessor!r}, got {paths.names}; copy "
                f"the directory of {predecessor!r} beside it"
            )
        if (found := paths[predecessor].content_hash()) != expected:
            raise PathError(
                f"predecessor {predecessor!r} of path {name!r} must be {expected[:12]}..., got "
                f"{found[:12]}...: another path of that name; copy the right one"
            )
    spec: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in description["spec"].items()
    }
    tensors = PATH.load(directory, TENSORS)
    try:
        if (fields := spec.get("patches")) is not None:
            spec["patches"] = KernelSpec(**fields) if "reach" in fields else PatchSpec(**fields)
        # A pattern may match feed-forward layers that were not among the path's hosts.
        alone = [site for site in paths.hosts if not matches(site, ("*",))]
        without = [site for site in alone if f"experts.{site}.adapter.scale" not in tensors]
        path = paths.expand(PathSpec(**spec), without=without)
    except TypeError as error:
        raise PATH.broken(directory, error) from error
    try:
        load_exactly(path, tensors, f"{directory / TENSORS} must fit its spec", PATH.remedy)
    except PathError:
        paths.drop(name)
        raise
    path.requires_grad_(False)
    return path.eval()


def load_proof(directory: Path) -> dict[str, Tensor]:
    """Return the recorded inputs and outputs of a saved path; empty if none were recorded."""
    return PATH.load(directory, PROOF)


def load_order(directories: Mapping[str, Path], wanted: Sequence[str] | None = None) -> list[str]:
    """Return names of saved paths so that every path comes after its predecessors.

    Args:
        directories: Where the paths are, by name.
        wanted: Return only these and what they build on; None is all.

    Raises:
        PathError: If a wanted path or a predecessor is missing.
    """
    order: list[str] = []

    def visit(name: str, wanted_by: str) -> None:
        if name not in directories:
            raise PathError(
                f"{wanted_by} must find path {name!r}, got {sorted(directories)}; copy the "
                f"directory of {name!r} beside them"
            )
        if name not in order:
            for earlier in describe_path(directories[name])["predecessors"]:
                visit(earlier, f"path {name!r}")
            order.append(name)

    for name in directories if wanted is None else wanted:
        visit(name, "the run")
    return order
