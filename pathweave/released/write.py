"""An import on disk: a connector and paths, bound to a language model or not.

connector/    Q-Former and projector, when no base was given
base/         the same, bound to the base that was given
paths/NAME/   one directory per path
recipe.json   with a recipe: the directory is a run, which every command takes
import.json   what became of every key
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pathweave.encoders import licence_of
from pathweave.errors import BaseMismatchError, PathError, RecipeError
from pathweave.model.base import Base, save_base
from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.recipe.reading import dump_recipe
from pathweave.recipe.schema import Recipe
from pathweave.released.checkpoint import Checkpoint
from pathweave.released.importer import Imported
from pathweave.released.layout import Role
from pathweave.released.projector import retrained
from pathweave.runs.path_directory import save_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory, write_json
from pathweave.storage.bundle import Bundle
from pathweave.storage.tensors import under

UNBOUND = "unbound"
"""Fingerprint in the description of a path that was imported without a base."""
CONNECTOR = Bundle(
    "a connector",
    "connector.json",
    ("connector.safetensors",),
    frozenset({"qformer", "projector_scale"}),
)


def bind(imported: Imported, base: Base) -> Base:
    """Put the imported connector in the place of a base's own, and return the base.

    Raises:
        BaseMismatchError: If its sizes differ from those of the base's connector.
    """
    own = base.qformer.shape
    # What no tensor shows is the base's.
    unseen = ["num_heads", "dropout", "layer_norm_eps"]
    unseen += ["max_positions"] if own.vocab_size is None else []
    shape = replace(imported.shape, **{name: getattr(own, name) for name in unseen})
    llm_dim, scale = base.projector.linear.host.out_features, base.projector.scale
    if (shape, imported.llm_dim, None) != (own, llm_dim, scale):
        scaled = "" if scale is None else ", scaled"
        raise BaseMismatchError(
            f"the base must have a Q-Former with {shape} and a plain projector to width "
            f"{imported.llm_dim}, as the files, got {own} and width {llm_dim}{scaled}; give the "
            "base that they were trained with"
        )
    for part, module in (("qformer", base.qformer), ("projector", base.projector)):
        module.load_state_dict(under(imported.connector, f"{part}."))
    base.fresh_projector = False
    return base


def write_import(
    imported: Imported, out: Path, base: Base | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Write an import and return what ``import.json`` says of it (see ``report_import``).

    Args:
        imported: What was read.
        out: A new directory.
        base: The base to bind the paths to; its connector becomes the imported one.
        recipe: The run that the directory is to be; needs a base.

    Raises:
        PathError: If there is something at ``out``.
        BaseMismatchError: If the base has another size.
        RecipeError: If the recipe has other stages.
        DiskError: If the directory cannot be written.
    """
    if out.exists():
        raise PathError(f"{out} must be a new directory, got one that exists; choose another --out")
    names = tuple(imported.paths.names)
    if recipe is not None and recipe.curriculum[: len(names)] != names:
        raise RecipeError(
            f"the curriculum must start with {list(names)}, as the files, got "
            f"{list(recipe.curriculum)}; use the recipe that they were trained with"
        )
    if base is not None:
        bind(imported, base)
    fingerprint = UNBOUND if base is None else base.fingerprint()
    report = report_import(imported, fingerprint)
    with new_directory(out) as root:
        run = RunDirectory(root)
        if base is None:
            state = {name: tensor.float() for name, tensor in imported.connector.items()}
            about = {"qformer": asdict(imported.shape), "projector_scale": None}
            CONNECTOR.write(root / "connector", {CONNECTOR.tensors[0]: state}, about)
        else:
            save_base(base, run.base)
        for path in imported.paths:
            name = path.spec.name
            licences = {} if base is None else dict(base.licences)
            if recipe is not None:
                encoders = recipe.encoder_kinds(name)
                licences["encoder"] = ", ".join(licence_of(kind) for kind in encoders)
            said = {
                "modality": None if recipe is None else recipe.about_media(name),
                "trained_parameters": sum(path.count().values()),
                "seconds": 0.0,
                "licences": {**licences, "checkpoint": "not stated"},
                "released": imported.about[name],
            }
            save_path(path, imported.paths, run.path(name), fingerprint, said)
        if recipe is not None:
            run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
        write_json(root / "import.json", report)
    return report


def report_import(imported: Imported, base_fingerprint: str = UNBOUND) -> dict[str, Any]:
    """Return what became of every key, as JSON values.

    Returns:
        ``files``: of each its name, ``path`` and ``position``, its ``keys`` by role, and entries
        ``beside`` the model that were not read; ``parameters`` of each path by kind; ``quirks``:
        whether they are files of the released code; ``base_fingerprint``; and ``notes`` of what is
        out of the ordinary.
    """
    checkpoints = imported.checkpoints
    before = [None, *(c if c.stage.position >= 0 else None for c in checkpoints)]
    return {
        "files": [
            {
                "file": checkpoint.file.name,
                "path": checkpoint.name,
                "position": checkpoint.stage.position if checkpoint.stage.position >= 0 else None,
                "keys": _keys(checkpoint, earlier),
                "beside": list(checkpoint.beside),
            }
            for earlier, checkpoint in zip(before, checkpoints, strict=False)
        ],
        "parameters": {path.spec.name: path.count() for path in imported.paths},
        "quirks": any(c.stage.quirks for c in checkpoints if c.stage.position > 0),
        "base_fingerprint": base_fingerprint,
        "notes": list(_notes(imported)),
    }


def _keys(checkpoint: Checkpoint, before: Checkpoint | None) -> dict[str, list[str]]:
    """Return the keys of a file by role, given the file of the stage before."""
    keys = {role.value: found for role in Role if (found := checkpoint.keys(role))}
    if before is not None:
        places = range(before.stage.position + 1)
        lists = [[c.adapter(PROJECTOR_SITE, i) for i in places] for c in (checkpoint, before)]
        for index in retrained(*lists):
            # What the stage trained again is in its own path and not in that of a predecessor.
            start = checkpoint.stage.key(f"llmProj_adapter_list.{index}.")
            earlier = keys[Role.PREDECESSOR]
            keys[Role.PATH] += [key for key in earlier if key.startswith(start)]
            keys[Role.PREDECESSOR] = [key for key in earlier if not key.startswith(start)]
    return keys


def _notes(imported: Imported) -> Iterator[str]:
    for checkpoint in imported.checkpoints:
        name = checkpoint.name
        if checkpoint.stage.has_value_defect:
            yield (
                f"{name}: value experts have no effect in cross-attention and use the keys' "
                "in-adapters in self-attention, as in the released code"
            )
        for index in checkpoint.stage.projector_skips:
            yield f"{name}: adapter {index} is left out at the projector"
        terms = imported.about[name].get("projector_terms", ())
        adapter = imported.paths[name].adapter(PROJECTOR_SITE)
        if adapter is not None and len(terms) > 1:
            said = " ".join(f"{'+' if sign > 0 else '-'}a{index}" for sign, index in terms)
            yield (
                f"{name}: its stage sums other adapters at the projector than planned, so the "
                f"adapter of its path there is {said} (rank {adapter.rank})"
            )
