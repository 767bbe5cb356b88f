"""Origin of a path: its recipe, data sets and results, from its run or the pack that it came in."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathweave.data.manifest import Manifest, manifest_sha256
from pathweave.errors import ManifestError, PathError, RunError
from pathweave.evaluate.results import Results
from pathweave.recipe.reading import WEIGHT_OPTIONS, parse_recipe
from pathweave.recipe.schema import DataSet, Recipe
from pathweave.runs.path_directory import DESCRIPTION, PROOF, TENSORS, describe_path, load_order
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.pack import BASE_MEMBERS, Contents, DataInfo, member_of, write_pack
from pathweave.storage.atomic import read_json
from pathweave.validation import unknown

FILES = (TENSORS, PROOF)


@dataclass(frozen=True)
class Origin:
    """What is known of the making of a path.

    Attributes:
        recipe: The recipe, with names in place of directories.
        data: Data sets; see ``Contents.data``.
        results: Results of the run, if there are any.
    """

    recipe: Recipe
    data: dict[str, DataInfo]
    results: Results | None


def arrived(run: RunDirectory, name: str) -> Path:
    """Return the file that keeps what the pack said in which a path came to a run."""
    return run.root / "packs" / f"{name}.json"


def origin_of(run: RunDirectory, name: str | None = None) -> Origin:
    """Return the origin of a path of a run, or of the whole run.

    Raises:
        RunError: If the directory is no run, or its results are damaged.
        PathError: If what a pack said is damaged.
    """
    if name is not None and (kept := arrived(run, name)).exists():
        rule, remedy = f"{kept} must hold what a pack said", "add the pack again"
        told = read_json(kept, rule, remedy, PathError)
        try:
            contents = Contents.model_validate(told)
        except ValueError as error:
            raise PathError(f"{rule}, got {' '.join(str(error).split())}; {remedy}") from error
        if contents.paths.get(name) == describe_path(run.path(name))["content_hash"]:
            return Origin(contents.recipe, contents.data, contents.results)
    recipe = run.recipe()
    results = Results.load(run.results) if run.results.exists() else None
    return Origin(placeless(recipe), data_of(recipe), results)


def pack(root: Path, name: str, file: Path, alone: bool = False) -> Contents:
    """Write a path of a run as one file.

    Args:
        root: Directory of the run.
        name: The path.
        file: What to write.
        alone: Leave out the paths that it builds on, and the connector: for whoever has them.

    Raises:
        RunError: If the directory is no run.
        PathError: If there is no such path, it is damaged, or its connector is not its own.
        DiskError: If the file cannot be written.
    """
    run = RunDirectory(root)
    finished = run.finished(run.recipe())
    if name not in finished:
        raise PathError(unknown("path", name, finished))
    if run.newest_connector(finished) is not None:
        raise RunError(
            f"{root} must have one connector for all its paths to give one away, got a method "
            f"({run.recipe().method.name}) that changes it from stage to stage; copy the whole run"
        )
    described = {each: describe_path(run.path(each)) for each in finished}
    order = load_order({each: run.path(each) for each in finished}, [name])
    hashes = {each: described[each]["content_hash"] for each in order}
    taken = [name] if alone else order
    origin = origin_of(run, name)
    members = [member_of(each, file) for each in taken for file in _files(run.path(each))]
    connector = "base"
    if run.base.exists():
        connector = "left_out" if alone else "pack"
        members += [] if alone else BASE_MEMBERS
    about = {
        "path": name,
        "paths": {each: hashes[each] for each in taken},
        "left_out": {each: hash_ for each, hash_ in hashes.items() if each not in taken},
        "base": described[name]["base_fingerprint"],
        "connector": connector,
        "recipe": only(origin.recipe, taken),
        "data": {key: of for key, of in origin.data.items() if key.partition(".")[0] in taken},
        "results": origin.results,
    }
    return write_pack(root, about, members, file)


def _files(directory: Path) -> list[str]:
    """Return the files of a path; others may lie beside them."""
    return [DESCRIPTION, *(file for file in describe_path(directory)["files"] if file in FILES)]


def only(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe of some of the stages, with the modalities that they need."""
    needed = {each for name in names for each in (name, *recipe.read_by(name))}
    modalities = {}
    for name, modality in recipe.modalities.items():
        if name in needed:
            is_whole = set(modality.predecessors or ()) <= {*names}
            earlier = modality.predecessors if is_whole else None
            modalities[name] = modality.model_copy(update={"predecessors": earlier})
    return recipe.model_copy(
        update={"curriculum": tuple(names), "modalities": modalities, "quick": {}}
    )


def placeless(recipe: Recipe) -> Recipe:
    """Return a recipe that names no place of this machine: files and directories by last name."""
    tree = recipe.model_dump(mode="json")
    for _, holder, option in places(tree):
        if Path(holder[option]).is_absolute():
            holder[option] = Path(holder[option]).name
    return parse_recipe(tree)


def places(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield what names a file, a directory or an id in a recipe as plain values.

    Each as its dotted field, and what holds it under which key.
    """
    found = [("base", tree, "base"), ("llm", tree, "llm")]
    for name, modality in tree["modalities"].items():
        for part in ("train", "test"):
            for key, data in modality[part].items():
                found.append((f"modalities.{name}.{part}.{key}.manifest", data, "manifest"))
        for option in WEIGHT_OPTIONS if modality["encoder"] is not None else ():
            dotted = f"modalities.{name}.encoder.{option}"
            found.append((dotted, modality["encoder"], option))
    yield from (each for each in found if isinstance(each[1].get(each[2]), str))


def data_of(recipe: Recipe) -> dict[str, DataInfo]:
    """Return the data sets of a recipe as far as their manifests are on this machine."""
    found = {}
    for name, modality in recipe.modalities.items():
        sets: dict[str, DataSet] = {f"train.{key}": data for key, data in modality.train.items()}
        sets |= {f"test.{key}": data for key, data in modality.test.items()}
        for key, data in sets.items():
            file, known = Path(data.manifest), {}
            with contextlib.suppress(ManifestError, OSError):  # of another machine, or removed
                known = {"num_samples": len(Manifest(file)), "sha256": manifest_sha256(file)}
            found[f"{name}.{key}"] = DataInfo.model_validate({"manifest": file.name, **known})
    return found
