"""Differences of two runs, or of two paths: in settings, data, tensors and scores."""

import tempfile
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console

from pathweave.display import WholeTable
from pathweave.errors import RunError
from pathweave.evaluate.results import Results
from pathweave.runs.path_directory import PATH, TENSORS, describe_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.origin import Origin, origin_of
from pathweave.share.pack import Pack
from pathweave.storage.bundle import SHOWN
from pathweave.storage.tensors import tensors_hash
from pathweave.validation import unknown

Side = dict[str, dict[str, Any]]
PARTS = ("settings", "data", "tensors", "scores")
LABELS = ("name", "quick")  # of a recipe: they change nothing that is learnt
BESIDE = ("whole", "probe", "text_only", "majority")


def diff(a: str, b: str) -> dict[str, Any]:
    """Return in what two runs or two paths differ.

    Directories count by their last name, data sets by the hash of their manifest, and tensors by
    their values. The names of two paths may differ.

    Args:
        a: A run, ``RUN:NAME`` for a path of it, or a pack.
        b: The other.

    Returns:
        ``equal``, and of ``settings``, ``data``, ``tensors`` and ``scores`` the fields that differ,
        each with the values of ``a`` and ``b``.

    Raises:
        RunError: If one is no run and no pack, or one is a run and the other a path.
        PathError: If a path or a pack is damaged, or there is no such path.
    """
    (kind, one), (other_kind, other) = _side(a), _side(b)
    if kind != other_kind:
        raise RunError(
            f"two runs or two paths must be compared, got a {kind} and a {other_kind}; name a path "
            "of a run as RUN:NAME"
        )
    found: dict[str, Any] = {
        part: [
            {"field": field, "a": one[part].get(field), "b": other[part].get(field)}
            for field in sorted(one[part].keys() | other[part].keys())
            if one[part].get(field) != other[part].get(field)
        ]
        for part in PARTS
    }
    return {"equal": not any(found.values()), **found}


def show_differences(found: dict[str, Any], a: str, b: str) -> None:
    """Print differences as one table."""
    console = Console()
    if found["equal"]:
        console.print("equal in settings, data, tensors and scores")
        return
    table = WholeTable("", "field", a, b, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for part in PARTS:
        for number, each in enumerate(found[part]):
            shown = [_shown(part, each[side]) for side in ("a", "b")]
            table.add_row(part if number == 0 else "", each["field"], *shown)
    console.print(table, crop=False)
    equal = [part for part in PARTS if not found[part]]
    if equal:
        console.print(f"equal: {', '.join(equal)}")


def _shown(part: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    is_hash = part in ("data", "tensors") and isinstance(value, str)
    return str(value)[:SHOWN] if is_hash else str(value)


def _side(named: str) -> tuple[str, Side]:
    """Return whether something is a run or a path, and its values by field in each part."""
    place, colon, name = named.rpartition(":")
    if Path(named).is_file():
        with tempfile.TemporaryDirectory() as directory:
            pack = Pack(Path(named))
            pack.extract(Path(directory), base=False)
            contents = pack.contents
            origin = Origin(contents.recipe, contents.data, contents.results)
            return "path", _path_side(RunDirectory(Path(directory)), contents.path, origin)
    if colon and not Path(named).exists():
        run = RunDirectory(Path(place))
        finished = run.finished(run.recipe())
        if name not in finished:
            raise RunError(unknown(f"path of {place}", name, finished))
        return "path", _path_side(run, name, origin_of(run, name))
    return "run", _run_side(RunDirectory(Path(named)))


def _run_side(run: RunDirectory) -> Side:
    origin = origin_of(run)
    tree = origin.recipe.model_dump(mode="json", exclude={*LABELS})
    tensors = {}
    for name in run.finished(run.recipe()):
        tensors[name] = _hash(run, name)
        tensors["base"] = describe_path(run.path(name))["base_fingerprint"]
    scores: dict[str, Any] = {}
    if (results := origin.results) is not None:
        for stage, name, dataset, score in results.scored():
            scores[f"{name} {dataset.name} after {results.curriculum[stage]}"] = score
        for name, dataset in results.columns:
            scores |= {f"{name} {dataset.name} {b}": getattr(dataset, b) for b in BESIDE}
        for stage in results.finished_stages:
            scores |= _transfer(results, stage, f" after {results.curriculum[stage]}")
    return {
        "settings": _flat(tree),
        "data": _data(origin),
        "tensors": tensors,
        "scores": scores,
    }


def _path_side(run: RunDirectory, name: str, origin: Origin) -> Side:
    about, recipe = describe_path(run.path(name)), origin.recipe
    spec = {field: value for field, value in about["spec"].items() if field != "name"}
    settings = {
        **{field: getattr(recipe, field) for field in ("base", "llm", "quantise", "seed")},
        "method": recipe.method.model_dump(mode="json"),
        "modality": recipe.modalities[name].model_dump(mode="json", exclude={"training"}),
        "training": recipe.training_of(name).model_dump(mode="json"),
        "spec": spec,
    }
    tensors = {"path": _hash(run, name), "base": about["base_fingerprint"]}
    tensors |= {f"predecessor {each}": of for each, of in about["predecessors"].items()}
    scores: dict[str, Any] = {}
    if (results := origin.results) is not None and name in results.curriculum:
        own = results.curriculum.index(name)
        for stage, modality, dataset, score in results.scored():
            if modality == name:
                scores |= {f"{dataset.name} after its stage": score} if stage == own else {}
                scores[f"{dataset.name} at the end"] = score
        for dataset in results.datasets.get(name, []):
            scores |= {f"{dataset.name} {beside}": getattr(dataset, beside) for beside in BESIDE}
        if own in results.finished_stages:
            scores |= _transfer(results, own, "")
    return {
        "settings": _flat(settings),
        "data": {
            key.partition(".")[2]: value
            for key, value in _data(origin).items()
            if key.startswith(f"{name}.")
        },
        "tensors": tensors,
        "scores": scores,
    }


def _transfer(results: Results, stage: int, when: str) -> dict[str, float]:
    matrix, earlier = results.matrix, results.curriculum[:stage]
    found = {f"T{when}": matrix.transfer(stage)}
    if earlier and all(matrix.can_lose(stage, name) for name in earlier):
        found[f"F{when}"] = matrix.forgetting_mean(stage)
    return found


def _data(origin: Origin) -> dict[str, Any]:
    return _flat({key: of.model_dump(exclude={"manifest"}) for key, of in origin.data.items()})


def _hash(run: RunDirectory, name: str) -> str:
    return tensors_hash(PATH.load(run.path(name), TENSORS))


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Return the values of a tree by dotted field."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        field = f"{at}.{name}".strip(".")
        flat |= _flat(value, field) if isinstance(value, dict) else {field: value}
    return flat
