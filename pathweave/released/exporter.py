"""Export of a run or an import to files in the released layout, one per path."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pathweave.errors import PathError
from pathweave.model.base import SAVED_BASE
from pathweave.model.paths import ModalPath, Paths, matches
from pathweave.nn import QFormerConfig
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.released.checkpoint import QUIRKS
from pathweave.released.importer import LIVE_SITES, Imported
from pathweave.released.layout import CheckpointStage, KeySpec, Role, file_prefix, hosts, key_specs
from pathweave.released.projector import AdapterState, projector_adapters
from pathweave.released.write import CONNECTOR
from pathweave.runs.loading import new_model
from pathweave.runs.path_directory import DESCRIPTION, describe_path, load_order, load_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory
from pathweave.storage.tensors import under

RELEASED_NORM_EPS = 1e-5
BIAS = "projector.linear.host.bias"
NOISE = "gate.noise_weight"  # which a path without noise does not have


def export_directory(directory: Path, out: Path) -> dict[str, Any]:
    """Write the paths of a directory in the released layout, as safetensors.

    Importing the files again gives the same paths.

    Args:
        directory: A run, or what ``pathweave import`` wrote.
        out: A new directory.

    Returns:
        By path, in order of the stages: names of the ``files``, and the number of tensors, the
        ``keys``, of each; and ``notes`` of what the layout cannot say, or the released code would
        compute in another way.

    Raises:
        PathError: If ``directory`` holds no connector or paths, or a path that the layout cannot
            hold, or if there is something at ``out``.
        DiskError: If the files cannot be written.
    """
    if out.exists():
        raise PathError(f"{out} must be a new directory, got one that exists; choose another --out")
    source = _read(directory)
    adapted = [path for path in source.paths if path.spec.rank]
    files, keys, notes = {}, {}, list[str]()
    listed: list[AdapterState] = []
    with new_directory(out) as root:
        for path in source.paths:
            name, stage = path.spec.name, _stage(path, adapted, source)
            if path.spec.rank:
                saved = source.about[name].get("projector_terms", ())
                terms = [(sign, index) for sign, index in saved] or [(1, stage.position)]
                _check_representable(path, stage, adapted, source, len(terms))
                own = under(path.state_dict(), f"experts.{PROJECTOR_SITE}.adapter.")
                listed = projector_adapters(own, terms, listed)
            state = dict(_tensors(stage, path, adapted, source, listed))
            files[name], keys[name] = f"{stage.prefix}.safetensors", len(state)
            # One entry: safetensors writes several in random order.
            metadata = {QUIRKS: str(stage.quirks).lower()} if path.spec.rank else None
            (root / files[name]).write_bytes(save(state, metadata))
            notes += _notes(path, stage)
    return {"files": files, "keys": keys, "notes": notes}


def _read(directory: Path) -> Imported:
    """Return the connector and the paths of a directory, those without adapters first."""
    run = RunDirectory(directory)
    if run.connectors.is_dir():
        rule = f"{directory} must have one connector that all its stages share"
        raise _cannot(rule, "one that later stages have changed")
    connector, shape = _read_connector(directory)
    # A hidden one is what a kill has left beside the path itself.
    found = [file.parent for file in sorted(run.paths.glob(f"*/{DESCRIPTION}"))]
    places = {place.name: place for place in found if not place.name.startswith(".")}
    if not places:
        raise PathError(f"{directory} must hold paths/, got none; give a run or an import")
    described = {name: describe_path(places[name]) for name in load_order(places)}
    for name, about in described.items():
        if own := about["spec"].get("own"):
            raise _cannot(f"path {name!r} must have own []", own)
    paths = Paths(shape.dim, shape.encoder_width, hosts(shape, len(connector[BIAS])))
    fingerprint = next(iter(described.values()))["base_fingerprint"]
    for name in sorted(described, key=lambda name: described[name]["spec"]["rank"] > 0):
        load_path(places[name], paths, fingerprint)
    released = {name: about.get("released") or {} for name, about in described.items()}
    return Imported(connector, shape, paths, released)


def _read_connector(directory: Path) -> tuple[Mapping[str, Tensor], QFormerConfig]:
    for place, bundle in ((directory / "connector", CONNECTOR), (directory / "base", SAVED_BASE)):
        if not (place / bundle.description).is_file():
            continue
        about, state = bundle.read(place), bundle.load(place, bundle.tensors[0])
        try:
            scale, shape = about["projector_scale"], QFormerConfig(**about["qformer"])
        except (TypeError, ValueError) as error:
            raise bundle.broken(place, error) from error
        break
    else:
        base = new_model(RunDirectory(directory).recipe()).base
        state, scale, shape = base.connector_state(), base.projector.scale, base.qformer.shape
    if scale is not None:
        raise _cannot(f"{directory} must have a plain projector", f"one scaled to {scale:.3g}")
    return state, shape


def _stage(path: ModalPath, adapted: Sequence[ModalPath], source: Imported) -> CheckpointStage:
    """Return the sizes of the file of a path."""
    spec = path.spec
    return CheckpointStage(
        prefix=file_prefix(spec.name),
        shape=source.shape,
        llm_dim=source.llm_dim,
        num_queries=spec.num_queries,
        own_width=spec.encoder_width,
        position=adapted.index(path) if spec.rank else -1,
        num_adapters=len(adapted),
        num_in_adapters=len(adapted) - 1,
        rank=spec.rank,
        quirks=bool(source.about[spec.name].get("quirks", False)),
    )


def _check_representable(
    path: ModalPath,
    stage: CheckpointStage,
    adapted: Sequence[ModalPath],
    source: Imported,
    num_terms: int,
) -> None:
    """Check that the released layout can hold a path with adapters.

    Raises:
        PathError: Naming the field of its spec that it cannot.
    """
    spec, position = path.spec, stage.position
    at_projector = path.adapter(PROJECTOR_SITE)
    patterns = LIVE_SITES if stage.has_value_defect and path is adapted[-1] else ("*",)
    rules: dict[str, tuple[object, object]] = {
        "predecessors": (spec.predecessors, tuple(p.spec.name for p in adapted[:position])),
        "rank": (spec.rank, adapted[0].spec.rank),
        "sites": (
            sorted(path.experts),
            sorted(site for site in source.paths.hosts if matches(site, patterns)),
        ),
        # Each of several terms has one channel more, for its constant (see ``projector``).
        "rank at the projector": (
            at_projector and at_projector.rank,
            spec.rank if num_terms == 1 else num_terms * (spec.rank + 1),
        ),
    }
    if position:
        gates = spec.gate if spec.gate in ("softmax", "noisy_softmax") else "softmax"
        plain = sorted(s for s in path.experts if path.experts[s].gate is None)
        rules |= {
            "gate": (spec.gate, gates),
            "in_adapter": (spec.in_adapter, spec.in_adapter or "identity"),
            "plain_sites": (plain, [PROJECTOR_SITE]),
        }
    for rule, (found, wanted) in rules.items():
        if found != wanted:
            raise _cannot(f"path {spec.name!r} must have {rule} {wanted}", found)


def _cannot(rule: str, found: object) -> PathError:
    return PathError(f"{rule} in the released layout, got {found}; it cannot be exported")


def _tensors(
    stage: CheckpointStage,
    path: ModalPath,
    adapted: Sequence[ModalPath],
    source: Imported,
    listed: Sequence[AdapterState],
) -> Iterator[tuple[str, Tensor]]:
    """Return every tensor of a file, given the adapters that it lists at the projector."""
    states, own = [earlier.state_dict() for earlier in adapted], path.state_dict()
    at_projector = f"experts.{PROJECTOR_SITE}.adapter."
    made: dict[str, Tensor] = {}
    for key, spec in key_specs(stage).items():
        name, index = (spec.names or ("",))[0], spec.stage or 0
        if name.startswith(at_projector) and index < len(listed):
            tensor = listed[index][name.removeprefix(at_projector)]
        elif spec.role is Role.CONNECTOR:
            tensor = source.connector[name]
        elif spec.role is Role.PREDECESSOR:
            tensor = states[index][name]
        elif spec.role is Role.ALIAS:
            tensor = made[name]
        elif spec.role is Role.PATH and (name in own or not name.endswith(NOISE)):
            tensor = own[name]
        else:
            tensor = _untrained(spec)
        tensor = tensor.reshape(spec.shape)
        # In safetensors every tensor has its own memory; those of the connector do already.
        made[key] = (tensor if spec.role is Role.CONNECTOR else tensor.clone()).contiguous()
        yield key, made[key]


def _untrained(spec: KeySpec) -> Tensor:
    """Return what an untrained model has there, the same at every call."""
    name = spec.names[0] if spec.names else ""
    if spec.role is Role.BUFFER:
        return torch.arange(spec.shape[-1])
    if name.endswith("scale"):
        return torch.ones(spec.shape)
    if ".in_adapters." in name and name.endswith("weight"):
        return torch.eye(spec.shape[0])
    if name.endswith("down.weight"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.init.kaiming_uniform_(torch.empty(spec.shape), a=math.sqrt(5))
    return torch.zeros(spec.shape)


def _notes(path: ModalPath, stage: CheckpointStage) -> Iterator[str]:
    """Return where the released code would compute something else with a file."""
    name, spec = path.spec.name, path.spec
    if spec.norm_eps != RELEASED_NORM_EPS:
        yield f"{name}: the layout has no epsilon of the input norm ({spec.norm_eps:g})"
    if spec.gate == "softmax" and stage.position > 0:
        yield f"{name}: its gates have no noise; that of the file starts at zero"
    released = replace(stage, quirks=True)
    if not stage.quirks and (released.has_value_defect or released.projector_skips):
        yield (
            f"{name}: the released code computes this stage with defects that the path was "
            "trained without (docs/deviations.md)"
        )
