"""From a run or an import back to files in the released layout, one per path."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
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
from pathweave.released.importer import LIVE_SITES
from pathweave.released.layout import CheckpointStage, KeySpec, Role, hosts, key_specs
from pathweave.released.names import file_prefix
from pathweave.released.projector import AdapterState, Term, projector_adapters
from pathweave.released.read import QUIRKS
from pathweave.released.write import CONNECTOR
from pathweave.runs.loading import new_model
from pathweave.runs.path_directory import DESCRIPTION, describe_path, load_order, load_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory

RELEASED_NORM_EPS = 1e-5
NOISE = "gate.noise_weight"  # which a path without noise does not have


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        files: Names of the files by path, in order of the stages.
        keys: Number of tensors of each file, by path.
        notes: What the layout cannot say, or the released code would compute in another way.
    """

    files: dict[str, str]
    keys: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """What is exported: a connector, and paths with their descriptions."""

    connector: Mapping[str, Tensor]
    shape: QFormerConfig
    paths: Paths
    described: Mapping[str, Mapping[str, Any]]

    @property
    def stages(self) -> list[ModalPath]:
        """The paths with adapters, in order."""
        return [path for path in self.paths if path.spec.rank]

    def released(self, name: str) -> Mapping[str, Any]:
        """Return what the description says of the file that a path was imported from."""
        return self.described[name].get("released") or {}

    def terms(self, path: ModalPath) -> list[Term]:
        """Return what the adapter of a path at the projector is made of."""
        saved = self.released(path.spec.name).get("projector_terms")
        return [(s, i) for s, i in saved] if saved else [(1, self.stages.index(path))]

    def stage(self, path: ModalPath) -> CheckpointStage:
        """Return the sizes of the file of a path."""
        spec, stages = path.spec, self.stages
        return CheckpointStage(
            prefix=file_prefix(spec.name),
            shape=self.shape,
            llm_dim=self.paths.hosts[PROJECTOR_SITE][1],
            num_queries=spec.num_queries,
            own_width=spec.encoder_width,
            position=stages.index(path) if spec.rank else None,
            num_adapters=len(stages),
            num_in_adapters=len(stages) - 1,
            rank=spec.rank,
            quirks=bool(self.released(spec.name).get("quirks", False)),
        )


def export_directory(directory: Path, out: Path) -> ExportReport:
    """Write the paths of a directory in the released layout, as safetensors.

    Importing the files again gives the same paths.

    Args:
        directory: A run, or what ``pathweave import`` wrote.
        out: A new directory.

    Raises:
        PathError: If ``directory`` holds no connector or paths, or a path that the layout cannot
            hold, or if there is something at ``out``.
        DiskError: If the files cannot be written.
    """
    if out.exists():
        raise PathError(f"{out} must be a new directory, got one that exists; choose another --out")
    source = _read(directory)
    lists: dict[str, list[AdapterState]] = {}
    before: list[AdapterState] = []
    for path in source.stages:
        _check_representable(path, source)
        adapter = path.adapter(PROJECTOR_SITE)
        assert adapter is not None  # one of the sites that were checked
        before = projector_adapters(adapter.state_dict(), source.terms(path), before)
        lists[path.spec.name] = before
    files, keys = {}, {}
    with new_directory(out) as root:
        for path in source.paths:
            stage, name = source.stage(path), path.spec.name
            state = dict(_tensors(stage, path, source, lists.get(name, [])))
            files[name], keys[name] = f"{stage.prefix}.safetensors", len(state)
            # One entry: safetensors writes several in random order.
            metadata = {QUIRKS: str(stage.quirks).lower()} if path.spec.rank else None
            (root / files[name]).write_bytes(save(state, metadata))
    return ExportReport(files, keys, _notes(source))


def _read(directory: Path) -> _Source:
    run = RunDirectory(directory)
    if run.connectors.is_dir():
        raise PathError(
            f"{directory} must have one connector that all its stages share in the released "
            "layout, got one that later stages have changed; such a run cannot be exported"
        )
    connector, shape = _read_connector(directory)
    places = {
        place.name: place
        for place in sorted(run.paths.glob("*"))
        if (place / DESCRIPTION).is_file()
    }
    if not places:
        raise PathError(f"{directory} must hold paths/, got none; give a run or an import")
    described = {name: describe_path(places[name]) for name in load_order(places)}
    for name, about in described.items():
        if own := about["spec"].get("own"):
            raise PathError(
                f"path {name!r} must have own [] in the released layout, got {own}; such a path "
                "cannot be exported"
            )
    # Those without adapters come before all others.
    described = dict(sorted(described.items(), key=lambda item: item[1]["spec"]["rank"] > 0))
    llm_dim = len(connector["projector.linear.host.bias"])
    paths = Paths(shape.dim, shape.encoder_width, hosts(shape, llm_dim))
    fingerprint = next(iter(described.values()))["base_fingerprint"]
    for name in described:
        load_path(places[name], paths, fingerprint)
    return _Source(connector, shape, paths, described)


def _read_connector(directory: Path) -> tuple[Mapping[str, Tensor], QFormerConfig]:
    for name, bundle in {"connector": CONNECTOR, "base": SAVED_BASE}.items():
        place = directory / name
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
        raise PathError(
            f"{directory} must have a plain projector, got one scaled to {scale:.3g}; the released "
            "layout has no such thing"
        )
    return state, shape


def _check_representable(path: ModalPath, source: _Source) -> None:
    """Check that the released layout can hold a path with adapters.

    Raises:
        PathError: Naming the field of its spec that it cannot.
    """
    spec, stages = path.spec, source.stages
    position = stages.index(path)
    num_terms = len(source.terms(path))
    at_projector = path.adapter(PROJECTOR_SITE)
    is_last_with_defect = source.stage(path).has_value_defect and path is stages[-1]
    patterns = LIVE_SITES if is_last_with_defect else ("*",)
    sites = sorted(site for site in source.paths.hosts if matches(site, patterns))
    rules: dict[str, tuple[object, object]] = {
        "predecessors": (spec.predecessors, tuple(s.spec.name for s in stages[:position])),
        "rank": (spec.rank, stages[0].spec.rank),
        "sites": (sorted(path.experts), sites),
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
            raise PathError(
                f"path {spec.name!r} must have {rule} {wanted} in the released layout, got "
                f"{found}; such a path cannot be exported"
            )


def _tensors(
    stage: CheckpointStage, path: ModalPath, source: _Source, listed: list[AdapterState]
) -> Iterator[tuple[str, Tensor]]:
    """Return every tensor of a file, given the adapters that it lists at the projector."""
    states = [earlier.state_dict() for earlier in source.stages]
    own = path.state_dict()
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
            tensor = _fresh(spec)
        tensor = tensor.reshape(spec.shape)
        # In safetensors every tensor has its own memory; those of the connector do already.
        made[key] = (tensor if spec.role is Role.CONNECTOR else tensor.clone()).contiguous()
        yield key, made[key]


def _fresh(spec: KeySpec) -> Tensor:
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


def _notes(source: _Source) -> list[str]:
    """Return where the released code would compute something else with the files."""
    notes = []
    for path in source.paths:
        name, spec = path.spec.name, path.spec
        if spec.norm_eps != RELEASED_NORM_EPS:
            notes.append(f"{name}: the layout has no epsilon of the input norm ({spec.norm_eps:g})")
        if spec.gate == "softmax" and path in source.stages[1:]:
            notes.append(f"{name}: its gates have no noise; that of the file starts at zero")
        stage = source.stage(path)
        released = replace(stage, quirks=True)
        departs = released.has_value_defect or released.projector_skips
        if departs and not stage.quirks:
            notes.append(
                f"{name}: the released code computes this stage with defects that the path was "
                "trained without (docs/deviations.md)"
            )
    return notes
