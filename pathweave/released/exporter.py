"""From a run or an import back to files in the released layout, one per path."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pathweave.errors import PathError
from pathweave.model.paths import ModalPath, Paths, matches
from pathweave.nn import QFormerConfig
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.released.importer import LIVE_SITES
from pathweave.released.layout import Fate, Slot, Stage, hosts, slots
from pathweave.released.names import file_prefix
from pathweave.released.projector import Adapter, Term, listed
from pathweave.released.read import QUIRKS
from pathweave.runs.loading import new_model
from pathweave.runs.path_directory import describe_path, load_order, load_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import disk_errors, new_directory

CONNECTORS = {"connector": "connector.json", "base": "base.json"}
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
    for path in source.paths:
        _check_representable(path, source)
    lists = _projector_lists(source)
    files, keys = {}, {}
    with new_directory(out) as root:
        for path in source.paths:
            stage = _stage(path, source)
            state = dict(_tensors(stage, path, source, lists))
            file = f"{stage.prefix}.safetensors"
            has_stage = stage.position is not None
            # One entry: safetensors writes several in random order.
            metadata = {QUIRKS: str(stage.quirks).lower()} if has_stage else None
            with disk_errors(root / file):
                (root / file).write_bytes(save(state, metadata))
            files[path.spec.name], keys[path.spec.name] = file, len(state)
    return ExportReport(files, keys, _notes(source))


def _read(directory: Path) -> _Source:
    connector, shape = _read_connector(directory)
    llm_dim = len(connector["projector.linear.host.bias"])
    paths = Paths(shape.dim, shape.encoder_width, hosts(shape, llm_dim))
    places = {
        place.name: place
        for place in sorted(RunDirectory(directory).paths.glob("*"))
        if (place / "path.json").is_file()
    }
    if not places:
        raise PathError(f"{directory} must hold paths/, got none; give a run or an import")
    described = {name: describe_path(places[name]) for name in _order(places)}
    fingerprint = next(iter(described.values()))["base_fingerprint"]
    for name in described:
        load_path(places[name], paths, fingerprint)
    return _Source(connector, shape, paths, described)


def _order(places: Mapping[str, Path]) -> list[str]:
    """Return names of paths, predecessors first, those without adapters before all others."""
    return sorted(load_order(places), key=lambda name: _rank(places[name]) > 0)


def _rank(place: Path) -> int:
    return int(describe_path(place)["spec"]["rank"])


def _read_connector(directory: Path) -> tuple[Mapping[str, Tensor], QFormerConfig]:
    for name, about_file in CONNECTORS.items():
        if not (directory / name / about_file).is_file():
            continue
        try:
            about = json.loads((directory / name / about_file).read_text())
            state = load_file(directory / name / "connector.safetensors")
            _check_plain(about["projector_scale"], directory)
            return state, QFormerConfig(**about["qformer"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, PathError):
                raise
            raise PathError(
                f"{directory / name} must hold a connector, got {error!r}; copy the directory again"
            ) from error
    base = new_model(RunDirectory(directory).recipe()).base
    _check_plain(base.projector.scale, directory)
    return base.connector_state(), base.qformer.shape


def _check_plain(scale: float | None, directory: Path) -> None:
    if scale is not None:
        raise PathError(
            f"{directory} must have a plain projector, got one scaled to {scale:.3g}; the released "
            "layout has no such thing"
        )


def _check_representable(path: ModalPath, source: _Source) -> None:
    """Check that the released layout can hold a path.

    Raises:
        PathError: Naming the field of its spec that it cannot.
    """
    spec = path.spec
    if not spec.rank:
        return
    stages = source.stages
    position = stages.index(path)
    num_terms = len(source.terms(path))
    at_projector = path.adapter(PROJECTOR_SITE)
    rules = {
        "predecessors": (spec.predecessors, tuple(s.spec.name for s in stages[:position])),
        "rank": (spec.rank, stages[0].spec.rank),
        "sites": (set(path.experts), _sites(path, source)),
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
                f"path {spec.name!r} must have {rule} {_short(wanted)} in the released layout, got "
                f"{_short(found)}; such a path cannot be exported"
            )


def _short(value: object) -> object:
    return sorted(value) if isinstance(value, set) else value


def _sites(path: ModalPath, source: _Source) -> set[str]:
    every = set(source.paths.hosts)
    if _stage(path, source).has_value_defect and path is source.stages[-1]:
        return {site for site in every if matches(site, LIVE_SITES)}
    return every


def _stage(path: ModalPath, source: _Source) -> Stage:
    spec, stages = path.spec, source.stages
    return Stage(
        prefix=file_prefix(spec.name),
        shape=source.shape,
        llm_dim=source.paths.hosts[PROJECTOR_SITE][1],
        num_queries=spec.num_queries,
        own_width=spec.encoder_width,
        position=stages.index(path) if spec.rank else None,
        num_adapters=len(stages),
        num_in_adapters=len(stages) - 1,
        rank=spec.rank,
        quirks=bool(source.released(spec.name).get("quirks", False)),
    )


def _projector_lists(source: _Source) -> dict[str, list[Adapter]]:
    """Return the adapters that each stage lists at the projector."""
    lists: dict[str, list[Adapter]] = {}
    before: list[Adapter] = []
    for path in source.stages:
        adapter = path.adapter(PROJECTOR_SITE)
        assert adapter is not None  # _check_representable
        before = listed(adapter.state_dict(), source.terms(path), before)
        lists[path.spec.name] = before
    return lists


def _tensors(
    stage: Stage, path: ModalPath, source: _Source, lists: Mapping[str, list[Adapter]]
) -> Iterator[tuple[str, Tensor]]:
    """Return every tensor of a file."""
    states = [earlier.state_dict() for earlier in source.stages]
    own = path.state_dict()
    at_projector = f"experts.{PROJECTOR_SITE}.adapter."
    made: dict[str, Tensor] = {}
    for key, slot in slots(stage).items():
        name = slot.names[0] if slot.names else ""
        listed_here = name.startswith(at_projector) and (slot.stage or 0) <= (stage.position or 0)
        if listed_here:
            tensor = lists[path.spec.name][slot.stage or 0][name.removeprefix(at_projector)]
        elif slot.fate is Fate.CONNECTOR:
            tensor = source.connector[name]
        elif slot.fate is Fate.PREDECESSOR:
            tensor = states[slot.stage or 0][name]
        elif slot.fate is Fate.ALIAS:
            tensor = made[name]
        elif slot.fate is Fate.PATH and (name in own or not name.endswith(NOISE)):
            tensor = own[name]
        else:
            tensor = _fresh(slot)
        tensor = tensor.reshape(slot.shape)
        # In safetensors every tensor has its own memory; those of the connector do already.
        made[key] = (tensor if slot.fate is Fate.CONNECTOR else tensor.clone()).contiguous()
        yield key, made[key]


def _fresh(slot: Slot) -> Tensor:
    """Return what an untrained model has there, the same at every call."""
    name = slot.names[0] if slot.names else ""
    if slot.fate is Fate.BUFFER:
        return torch.arange(slot.shape[-1])
    if name.endswith("scale"):
        return torch.ones(slot.shape)
    if ".in_adapters." in name and name.endswith("weight"):
        return torch.eye(slot.shape[0])
    if name.endswith("down.weight"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.init.kaiming_uniform_(torch.empty(slot.shape), a=math.sqrt(5))
    return torch.zeros(slot.shape)


def _notes(source: _Source) -> list[str]:
    """Return where the released code would compute something else with the files."""
    notes = []
    for path in source.paths:
        name, spec = path.spec.name, path.spec
        if spec.norm_eps != RELEASED_NORM_EPS:
            notes.append(f"{name}: the layout has no epsilon of the input norm ({spec.norm_eps:g})")
        if spec.gate == "softmax" and path in source.stages[1:]:
            notes.append(f"{name}: its gates have no noise; that of the file starts at zero")
        stage = _stage(path, source)
        released = Stage(**{**vars(stage), "quirks": True})
        departs = released.has_value_defect or released.projector_skips
        if departs and not stage.quirks:
            notes.append(
                f"{name}: the released code computes this stage with defects that the path was "
                "trained without (docs/deviations.md)"
            )
    return notes
