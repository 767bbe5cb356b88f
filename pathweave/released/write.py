"""An import on disk: a connector and paths, bound to a language model or not.

connector/    Q-Former and projector, when no base was given
base/         the same, bound to the base that was given
paths/NAME/   one directory per path
recipe.json   with a recipe: the directory is a run, which every command takes
import.json   what became of every key
"""

from dataclasses import asdict, replace
from pathlib import Path

from pathweave.encoders import licence_of
from pathweave.errors import BaseMismatchError, PathError, RecipeError
from pathweave.model.base import Base, save_base
from pathweave.recipe.reading import dump_recipe
from pathweave.recipe.schema import Recipe
from pathweave.released.importer import Imported
from pathweave.released.report import ImportReport, make_report
from pathweave.runs.path_directory import save_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory, write_json
from pathweave.storage.bundle import Bundle

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
    if shape != own:
        raise BaseMismatchError(
            f"the base must have a Q-Former with {shape}, as the files, got {own}; give the base "
            "that they were trained with"
        )
    llm_dim = base.projector.linear.host.out_features
    if imported.llm_dim != llm_dim or base.projector.scale is not None:
        scaled = "" if base.projector.scale is None else ", scaled"
        raise BaseMismatchError(
            f"the base must have a plain projector to width {imported.llm_dim}, as the files, got "
            f"{llm_dim}{scaled}; give the base that they were trained with"
        )
    for part, module in (("qformer", base.qformer), ("projector", base.projector)):
        own_part = f"{part}."
        module.load_state_dict(
            {
                name.removeprefix(own_part): tensor
                for name, tensor in imported.connector.items()
                if name.startswith(own_part)
            }
        )
    base.fresh_projector = False
    return base


def write_import(
    imported: Imported, out: Path, base: Base | None = None, recipe: Recipe | None = None
) -> ImportReport:
    """Write an import.

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
    report = make_report(imported, fingerprint)
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
                "released": imported.about(name),
            }
            save_path(path, imported.paths, run.path(name), fingerprint, said)
        if recipe is not None:
            run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
        write_json(root / "import.json", report.json())
    return report
