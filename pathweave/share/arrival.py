"""Arrival of a pack: a run of its own, or a path more in a run of the same base, proved there."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pathweave.bases.hub import is_hub_id
from pathweave.bases.mini import KIND
from pathweave.bases.weights_manifest import language_models
from pathweave.errors import BaseMismatchError, PathError, RecipeError, RunError
from pathweave.evaluate.verify import TOLERANCE, Verdict, machine, verify_path
from pathweave.model.base import freeze
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.reading import dump_recipe, parse_recipe, set_field
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import load_finished, new_model
from pathweave.runs.path_directory import describe_path, load_path, load_proof
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.origin import arrived, places
from pathweave.share.pack import REMEDY, Contents, Pack
from pathweave.storage.atomic import (
    disk_errors,
    new_directory,
    sole_writer,
    write_atomic,
    write_json,
)
from pathweave.storage.bundle import SHOWN


@dataclass(frozen=True)
class Arrival:
    """What became of a pack in a run.

    Attributes:
        added: Paths that are new in the run.
        present: Paths that were there already, with equal content.
        verdicts: Of each new path with a proof.
        elsewhere: What the proofs were recorded on where it differs from this machine, as there
            and here, by path.
    """

    added: tuple[str, ...]
    present: tuple[str, ...] = ()
    verdicts: list[Verdict] = field(default_factory=list)
    elsewhere: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        verified = [
            asdict(v) | {"holds": v.holds, "elsewhere": self.elsewhere.get(v.path, {})}
            for v in self.verdicts
        ]
        return {"added": [*self.added], "present": [*self.present], "verified": verified}

    def lines(self) -> list[str]:
        """Return what is to be told of each path, a line each."""
        told = [f"{name}: there already, with equal content" for name in self.present]
        proved = {verdict.path: verdict for verdict in self.verdicts}
        for name in self.added:
            verdict = proved.get(name)
            if verdict is None:
                told.append(f"added {name}: no proof is kept with it, so nothing was compared")
                continue
            how = "bit-identical"
            if not verdict.identical:
                how = (
                    f"answers equal, tokens differ by {verdict.max_difference:.2g} of the largest "
                    f"(at most {TOLERANCE} is rounding)"
                )
            parts = self.elsewhere.get(name, {})
            other = "; ".join(f"{k} {there}, here {here}" for k, (there, here) in parts.items())
            told.append(f"added {name}: {how}{f'; recorded elsewhere: {other}' if other else ''}")
        return told


def unpack(file: Path, out: Path, overrides: Mapping[str, Any] | None = None) -> Arrival:
    """Write a pack as the directory of a run, which can be asked where its base is at hand.

    Args:
        file: The pack.
        out: A new directory.
        overrides: Values by dotted field of the recipe, such as ``{"base": "my/base"}``.

    Raises:
        PathError: If the file is no whole pack, or lacks predecessors or the connector.
        RecipeError: If its base or an encoder is a directory of another machine.
        RunError: If there is something at ``out``.
        DiskError: If it cannot be written.
    """
    pack = Pack(file)
    contents = pack.contents
    if out.exists():
        raise RunError(f"{out} must be a new directory, got one that exists; choose another")
    if contents.left_out:
        raise PathError(
            f"a pack must hold the predecessors of its path to be a run, got none of "
            f"{list(contents.left_out)}; add it to a run that has them (pathweave add), or ask for "
            "a pack made without --alone"
        )
    if contents.connector == "left_out" and "base" not in (overrides or {}):
        raise PathError(
            f"a pack must hold the connector of its base to be a run, got one without it; give the "
            f"base that has it (--set base=DIR, fingerprint {contents.base[:SHOWN]}...), add it to "
            "a run that has it, or ask for a pack made without --alone"
        )
    with new_directory(out) as root:
        pack.extract(root)
        run = RunDirectory(root)
        recipe = _at_hand(contents.recipe.model_dump(mode="json"), overrides)
        run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
        for name in contents.paths:
            write_json(arrived(run, name), contents.model_dump(mode="json"))
        if contents.results is not None:
            contents.results.save(run.results)
    return Arrival(tuple(contents.paths))


def add(root: Path, file: Path, overrides: Mapping[str, Any] | None = None) -> Arrival:
    """Add the paths of a pack to a run of the same base, if they compute there what they did.

    Paths that the run has already, with equal content, are left as they are.

    Args:
        root: Directory of a finished run.
        file: The pack.
        overrides: Values by dotted field of the pack's recipe, such as where an encoder is.

    Raises:
        PathError: If the file is no whole pack, a predecessor is missing, a name is taken by
            another path, or a path computes something else than it did where it was learnt.
        BaseMismatchError: If the run has another base.
        RecipeError: If an encoder is in a directory of another machine.
        RunError: If the directory is no finished run.
        BusyError: If a run is writing to it.
        DiskError: If it cannot be written.
    """
    pack, run = Pack(file), RunDirectory(root)
    contents, before = pack.contents, run.recipe()
    finished = run.finished(before)
    if missing := [name for name in before.curriculum if name not in finished]:
        raise RunError(
            f"{root} must be a finished run, got none of its stage {missing[0]!r}; finish it with "
            "pathweave evolve"
        )
    have = {name: describe_path(run.path(name))["content_hash"] for name in finished}
    new = _new_paths(contents, before, have)
    present = tuple(name for name in contents.paths if name not in new)
    if not new:
        pack.check()
        return Arrival((), present)
    verdicts, elsewhere = [], {}
    with sole_writer(root), _staging(run) as staging:
        with disk_errors(root):
            pack.extract(staging.root, base=False)
        tree = contents.recipe.model_dump(mode="json") | {"base": before.base, "llm": before.llm}
        recipe = joined(before, _at_hand(tree, overrides), staging, new)
        model = new_model(recipe)
        load_finished(model, run, before)
        fingerprint = model.base.fingerprint()
        if fingerprint != contents.base:
            raise BaseMismatchError(
                f"{file} must be added to a run of base {contents.base[:SHOWN]}..., got base "
                f"{fingerprint[:SHOWN]}...; unpack it as a run of its own (pathweave unpack)"
            )
        for name in new:
            if (proved := _arrive(model, staging.path(name), contents, name)) is not None:
                verdicts.append(proved[0])
                elsewhere[name] = proved[1]
        _place(staging, run, recipe, contents, new)
    return Arrival(tuple(new), present, verdicts, elsewhere)


def _arrive(
    model: PathWeave, place: Path, contents: Contents, name: str
) -> tuple[Verdict, dict[str, tuple[Any, Any]]] | None:
    """Load a path and compute its proof again; None if it has no proof.

    Beside the verdict stands what the proof was recorded on, there and here, where that differs.

    Raises:
        PathError: If it is another path than the pack says, or computes something else than it did.
    """
    path = load_path(place, model.paths, contents.base)
    freeze(model)
    if (found := path.content_hash()) != contents.paths[name]:
        raise PathError(
            f"path {name!r} of a pack must be {contents.paths[name][:SHOWN]}..., got "
            f"{found[:SHOWN]}...; {REMEDY}"
        )
    about, proof = describe_path(place).get("proof"), load_proof(place)
    if not (about and proof):
        return None
    try:
        verdict = verify_path(model, name, proof, about)
        there, here = about["machine"], machine(model)
        elsewhere = {k: (there.get(k), here[k]) for k in here if there.get(k) != here[k]}
    # A stranger's proof may hold anything.
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise PathError(
            f"the proof of path {name!r} must be of its own inputs, got {error!r:.200}; {REMEDY}"
        ) from error
    if not verdict.holds:
        raise PathError(
            f"path {name!r} must compute here what it did where it was learnt, got tokens that "
            f"differ by {verdict.max_difference:.2g} of the largest"
            f"{'' if verdict.answers_equal else ' and other answers'}; nothing was added: compare "
            "versions with those of its sender (path.json in the pack)"
        )
    return verdict, elsewhere


def _new_paths(contents: Contents, before: Recipe, have: Mapping[str, str]) -> list[str]:
    """Return the paths of a pack that a run has not.

    Raises:
        PathError: If a name is taken by another path, or a predecessor is missing.
    """
    for name, needed in contents.left_out.items():
        if have.get(name) != needed:
            found = f"another ({have[name][:SHOWN]}...)" if name in have else "none"
            raise PathError(
                f"the run must have predecessor {name!r} ({needed[:SHOWN]}...) of path "
                f"{contents.path!r}, got {found}; add a pack of {name!r} first, or ask for a pack "
                "made without --alone"
            )
    for name, hash_ in contents.paths.items():
        if name in before.modalities and have.get(name) != hash_:
            found = f"path {have[name][:SHOWN]}..." if name in have else "a modality without a path"
            raise PathError(
                f"the name of a path that is added must be free, got {name!r} ({hash_[:SHOWN]}...),"
                f" which the run gives to {found}; unpack it as a run of its own (pathweave "
                "unpack), or rename the modality before it is learnt"
            )
    return [name for name in contents.paths if name not in have]


@contextlib.contextmanager
def _staging(run: RunDirectory) -> Iterator[RunDirectory]:
    """Yield a directory within a run, which is gone afterwards; the caller holds the run alone."""
    staging = run.root / ".arriving"
    with disk_errors(run.root):
        shutil.rmtree(staging, ignore_errors=True)  # what a kill has left
        staging.mkdir()
    try:
        yield RunDirectory(staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _at_hand(tree: dict[str, Any], overrides: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe of a pack for this machine, without data sets, which are not in a pack.

    Raises:
        RecipeError: If a base or an encoder is in a directory that is not here.
    """
    for modality in tree["modalities"].values():
        modality |= {"train": {}, "test": {}}
    for dotted, value in (overrides or {}).items():
        is_place = isinstance(value, str) and Path(value).exists()
        set_field(tree, dotted, str(Path(value).absolute()) if is_place else value)
    recipe = parse_recipe(tree, "the recipe of the pack")
    known = {KIND, *language_models()}
    for dotted, holder, option in places(recipe.model_dump(mode="json")):
        name = holder[option]
        if not (name in known or is_hub_id(name) or Path(name).is_absolute()):
            raise RecipeError(
                f"{dotted} must be here or on the hub, got {name!r}, which was a directory where "
                f"the path was packed; add --set {dotted}=DIR with yours"
            )
    return recipe


def joined(run: Recipe, arriving: Recipe, staging: RunDirectory, names: list[str]) -> Recipe:
    """Return the recipe of a run with stages of another behind its own, which are learnt already.

    Args:
        run: The recipe of the run.
        arriving: That of the others.
        staging: Where the paths of these are.
        names: Their names.

    Raises:
        RecipeError: If a modality that they read is declared otherwise in the run.
    """
    tree, coming = run.model_dump(mode="json"), arriving.model_dump(mode="json")
    usual = tree["training"]
    for name in dict.fromkeys(each for n in names for each in (*arriving.read_by(n), n)):
        if name in tree["modalities"] and name not in names:
            if run.about_media(name) != arriving.about_media(name):
                raise RecipeError(
                    f"modality {name!r}, whose media the pack's path reads, must be declared in "
                    "the run as in the pack, got another decoder, encoder or cue; unpack it as a "
                    "run of its own"
                )
            continue
        modality = coming["modalities"][name]
        if name in names:
            as_learnt = arriving.training_of(name).model_dump(mode="json")
            modality["training"] = {
                key: value
                for key, value in as_learnt.items()
                if value != usual[key] and key != "connector"
            }
            modality["predecessors"] = [*describe_path(staging.path(name))["predecessors"]]
        tree["modalities"][name] = modality
    tree["curriculum"] = [*run.curriculum, *names]
    return parse_recipe(tree)


def _place(
    staging: RunDirectory, run: RunDirectory, recipe: Recipe, contents: Contents, names: list[str]
) -> None:
    """Put new paths into a run; they belong to it from when its recipe names them."""
    try:
        for name in names:
            with new_directory(run.path(name)) as directory:
                shutil.copytree(staging.path(name), directory, dirs_exist_ok=True)
            write_json(arrived(run, name), contents.model_dump(mode="json"))
        write_atomic(run.recipe_file, dump_recipe(recipe).encode())
    except BaseException:
        for name in names:
            shutil.rmtree(run.path(name), ignore_errors=True)
            with contextlib.suppress(OSError):
                arrived(run, name).unlink()
        raise
