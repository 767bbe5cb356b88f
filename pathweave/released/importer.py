"""Import of published files as one connector and one path per file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pathweave.errors import PathError
from pathweave.model.paths import NAME, Paths, PathSpec
from pathweave.nn import QFormerConfig
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.released.checkpoint import Checkpoint, parse_checkpoint, read_tensors, same
from pathweave.released.layout import Role, hosts, path_name
from pathweave.released.projector import ProjectorDelta, projector_deltas

LIVE_SITES = (
    "*/self_attention/*",
    "*/cross_attention/query",
    "*/cross_attention/key",
    "*/cross_attention/output",
    PROJECTOR_SITE,
)


@dataclass(frozen=True)
class Imported:
    """A connector and paths, read from a set of files, or from a directory to be exported.

    Attributes:
        connector: Tensors of Q-Former and projector, as ``Base.connector_state`` names them.
        shape: Sizes of the Q-Former.
        paths: One path per file, those without adapters first.
        about: What the description of a path says of the file it comes from, by path: its name,
            whether it has ``quirks``, and the ``projector_terms``; a path of a run has none of it.
        checkpoints: The files in the order of the paths; none for a directory.
    """

    connector: Mapping[str, Tensor]
    shape: QFormerConfig
    paths: Paths
    about: Mapping[str, Mapping[str, Any]]
    checkpoints: Sequence[Checkpoint] = ()

    @property
    def llm_dim(self) -> int:
        """Width of the language model's embeddings."""
        return self.paths.hosts[PROJECTOR_SITE][1]


def import_files(
    files: Sequence[Path],
    order: Sequence[str] | None = None,
    quirks: bool | None = None,
    num_heads: int | None = None,
) -> Imported:
    """Read published files of one run: X-InstructBLIP, BLIP-2, or stages of PathWeave.

    Args:
        files: The files, in any order.
        order: Modalities of the stages in order, checked against what the gates say; None takes
            what they say.
        quirks: Whether the stages are the released ones, which depart from their plan in places
            (docs/deviations.md); None takes what the files say, which is yes if they say nothing.
        num_heads: Heads of the Q-Former; None is one for every 64 channels.

    Raises:
        PathError: If a file is damaged, lacks a key, or has one that is unexpected or of another
            shape; if a stage is missing; or if the files are not of one run.
    """
    read = [read_tensors(file) for file in files]
    if quirks is None:
        said = {one.quirks for one in read if one.quirks is not None}
        if len(said) > 1:
            raise PathError(
                "the files must all be made with the same --quirks, got both; give files of one run"
            )
        quirks = said.pop() if said else True
    return assemble([parse_checkpoint(one, quirks, num_heads) for one in read], order)


def assemble(checkpoints: Sequence[Checkpoint], order: Sequence[str] | None = None) -> Imported:
    """Return what files hold together; arguments and errors as for ``import_files``."""
    ordered = _in_order(checkpoints)
    wanted, found = [path_name(name) for name in order or ()], [c.name for c in ordered]
    if order is not None and wanted != found:
        raise PathError(
            f"--order must be {','.join(found)}, which the gates of the files say, got "
            f"{','.join(wanted)}; correct it, or give the right files"
        )
    _check_one_run(ordered)
    stages = [c for c in ordered if c.stage.position >= 0]
    deltas = dict(zip((c.name for c in stages), projector_deltas(stages), strict=True))
    shape = ordered[0].stage.shape
    paths = Paths(shape.dim, shape.encoder_width, hosts(shape, ordered[0].stage.llm_dim)).eval()
    about: dict[str, dict[str, Any]] = {}
    for checkpoint in ordered:
        name = checkpoint.name
        _expand(paths, checkpoint, deltas.get(name))
        about[name] = {"file": checkpoint.file.name, "quirks": checkpoint.stage.quirks}
        if name in deltas:
            about[name]["projector_terms"] = deltas[name].terms
    return Imported(ordered[0].state(Role.CONNECTOR), shape, paths, about, ordered)


def _in_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the files without adapters, then the stages by the number of experts of their gates.

    Raises:
        PathError: If a modality or a stage is there twice, or a stage is missing.
    """
    ordered = sorted(checkpoints, key=lambda c: c.stage.position)
    files: dict[str, Path] = {}
    for name, file in ((c.name, c.file) for c in ordered):
        if not NAME.fullmatch(name):
            raise PathError(
                f"{file} must name its modality in lower-case letters, digits and underscores, got "
                f"{name!r}"
            )
        if (other := files.setdefault(name, file)) is not file:
            raise PathError(
                f"a modality must have one file, got {other} and {file} of {name!r}; give one of "
                "them"
            )
    stages = [c for c in ordered if c.stage.position >= 0]
    if [c.stage.position for c in stages] != list(range(len(stages))):
        found = ", ".join(f"{c.stage.position} ({c.name}, {c.file.name})" for c in stages)
        raise PathError(
            f"the files must be of the stages 0, 1, ... with one file each, got {found}; give one "
            "file of every stage up to the last"
        )
    return ordered


def _check_one_run(ordered: Sequence[Checkpoint]) -> None:
    """Check what the files share: the connector, and the adapters of earlier stages.

    Raises:
        PathError: Naming the first tensor that differs, and the two files.
    """
    first = ordered[0]
    for i, checkpoint in enumerate(ordered):
        for what, size in (("a Q-Former", "shape"), ("a language model's width", "llm_dim")):
            found, wanted = getattr(checkpoint.stage, size), getattr(first.stage, size)
            if found != wanted:
                raise PathError(
                    f"{checkpoint.file} must have {what} of {wanted} as {first.file}, got {found}; "
                    "the files are of several connectors: import them one by one"
                )
        _check_same(checkpoint, first, Role.CONNECTOR)
        for stage in [c for c in ordered[:i] if c.stage.position >= 0]:
            if stage.stage.has_value_defect:
                raise PathError(
                    f"{stage.file} must be of the last stage, got {checkpoint.file} after it: "
                    f"the value experts of {stage.stage.prefix!r} have no effect there and cannot "
                    "serve a later stage; give the files of the stages up to it"
                )
            _check_same(checkpoint, stage, Role.PREDECESSOR)


def _check_same(checkpoint: Checkpoint, other: Checkpoint, role: Role) -> None:
    """Check the connector of a file, or its adapters of the earlier stage ``other``."""
    shared = role is Role.CONNECTOR
    source = other.keys(role if shared else Role.PATH)
    theirs = {name: key for key in source for name in other.specs[key].names}
    for key in checkpoint.keys(role):
        spec = checkpoint.specs[key]
        name = spec.names[0]
        # At the projector the list of one stage is compared with that of the stage before.
        if not shared and (spec.stage != other.stage.position or f".{PROJECTOR_SITE}." in name):
            continue
        if not same(checkpoint.tensors[key], other.tensors[theirs[name]]):
            own = "each file of X-InstructBLIP has a connector of its own: import it alone, or "
            raise PathError(
                f"{checkpoint.file}: {key} must equal {theirs[name]} of {other.file}, got other "
                f"values; {own * shared}give files of one run"
            )


def _expand(paths: Paths, checkpoint: Checkpoint, delta: ProjectorDelta | None) -> None:
    """Add the path of a file."""
    stage = checkpoint.stage
    spec = PathSpec(stage.name, stage.own_width, stage.num_queries, rank=0)
    state = checkpoint.state(Role.PATH)
    if delta is not None:
        spec = replace(
            spec,
            predecessors=tuple(path.spec.name for path in paths if path.spec.rank),
            rank=stage.rank,
            sites=LIVE_SITES if stage.has_value_defect else ("*",),
            gate="noisy_softmax",
            in_adapter="normal",
            plain_sites=(PROJECTOR_SITE,),
        )
        if delta.rank != stage.rank:
            spec = replace(spec, plain_rank=delta.rank)
        state |= {f"experts.{PROJECTOR_SITE}.adapter.{k}": v for k, v in delta.adapter.items()}
    path = paths.expand(spec)
    path.load_state_dict(
        {name: state[name].reshape(own.shape) for name, own in path.state_dict().items()}
    )
    path.requires_grad_(False).eval()
