"""Extension of a finished run by one more sense; what was there is proved untouched."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pathweave.errors import RecipeError, RunError
from pathweave.evaluate.results import Results
from pathweave.evaluate.verify import Verdict, verify_base, verify_run
from pathweave.recipe.reading import parse_recipe
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import load_run, placed_model
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import disk_errors
from pathweave.train.evolve import evolve_recipe
from pathweave.train.processes import Processes, lost_processes
from pathweave.train.trackers import check_trackers


@dataclass(frozen=True)
class Extension:
    """What adding a sense came to.

    Attributes:
        added: Names of the stages added.
        verdicts: Of the base and of every earlier path, after the stages.
        results: Results of the whole run.
    """

    added: tuple[str, ...]
    verdicts: list[Verdict]
    results: Results

    def as_json(self) -> dict[str, Any]:
        """Return plain values: costs and scores of what was added, proofs of what was there."""
        stages = {stage.modality: stage for stage in self.results.stages}
        last = len(self.results.curriculum) - 1
        scored = [each for each in self.results.scored() if each[0] == last]
        return {
            "added": [
                {
                    **stages[name].model_dump(exclude_none=True),
                    "trained": stages[name].trained,
                    "share_percent": stages[name].share,
                    "scores": {data.name: score for _, m, data, score in scored if m == name},
                }
                for name in self.added
            ],
            "verified": [asdict(verdict) | {"holds": verdict.holds} for verdict in self.verdicts],
        }


def extended(run: Recipe, sense: Recipe) -> Recipe:
    """Return the recipe of a run with the stages of another recipe behind its own.

    The stages learn by the method and the settings of training of the run, but for those that
    their own modality sets: what a recipe says of all its stages holds for a run of its own.

    Raises:
        RecipeError: If the other recipe has another base or method, trains the connector that the
            paths of the run share, or has a modality that the run has too.
    """
    for field in ("base", "llm", "quantise", "method"):
        if field in sense.model_fields_set and getattr(sense, field) != getattr(run, field):
            raise RecipeError(
                f"{field} of a recipe that extends a run must be that of the run, got another; "
                "leave it out"
            )
    modalities = {name: run.modalities[name] for name in run.modalities}
    for name, modality in sense.modalities.items():
        if name in modalities:
            raise RecipeError(
                f"a modality that is added must be new, got {name!r}, which the run has; give it "
                "another name"
            )
        if modality.training.get("connector"):
            raise RecipeError(
                f"stage {name!r} must leave the connector alone, which the paths of the run share, "
                f"got modalities.{name}.training.connector: true; leave it out"
            )
        modalities[name] = modality
    tree = run.model_dump(mode="json")
    tree["modalities"] = {n: m.model_dump(mode="json") for n, m in modalities.items()}
    tree["curriculum"] = [*run.curriculum, *sense.curriculum]
    return parse_recipe(tree)


def extend_run(
    root: Path,
    sense: Recipe,
    out: Path | None = None,
    quiet: bool = False,
    track: Sequence[str] = (),
) -> Extension | None:
    """Add the stages of a recipe to a run, whose paths are verified before and after.

    Begun again after it was stopped, it goes on from there. Of several processes all learn, and
    the first one copies and verifies.

    Args:
        root: Directory of the run.
        sense: The recipe of what is added.
        out: Where a copy of the run is extended; None extends the run itself.
        quiet: Show nothing.
        track: Trackers that are given the numbers too, of ``TRACKERS``.

    Returns:
        What was added, on the main process.

    Raises:
        RecipeError: If the recipe does not fit the run; see ``extended``.
        RunError: If the directory is no finished run, ``out`` is another run, or the base or an
            earlier path computes something else than it did, before the stages or after.
        PathWeaveError: For whatever stops a run.
    """
    check_trackers(track)  # before the paths are verified, which takes its time
    run = RunDirectory(root)
    before, count = run.recipe(), len(sense.curriculum)
    if out is None and before.curriculum[-count:] == sense.curriculum:  # it was begun before
        before = before.cut(len(before.curriculum) - count)
    recipe = extended(before, sense)
    if missing := [name for name in before.curriculum if name not in run.finished(before)]:
        raise RunError(
            f"{root} must be a finished run, got none of its stage {missing[0]!r}; finish it with "
            "pathweave evolve"
        )

    def prepare() -> None:
        _proved(RunDirectory(root), before.curriculum, "before anything was added")
        if out is not None and not out.exists():
            copy = out.with_name(f"{out.name}.partial")
            with disk_errors(out):
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(root, copy)
                copy.rename(out)

    with lost_processes():
        Processes(Accelerator()).alone(prepare)
    run = RunDirectory(out or root)
    results = evolve_recipe(recipe, run.root, quiet, track)
    if results is None:
        return None
    return Extension(sense.curriculum, _proved(run, before.curriculum, "afterwards"), results)


def _proved(run: RunDirectory, names: Sequence[str], when: str) -> list[Verdict]:
    model = placed_model(load_run(run.root)[0])
    verdicts = verify_base(model, run)
    verdicts += verify_run(model, run, [name for name in names if name in model.paths])
    if broken := [verdict.path for verdict in verdicts if not verdict.holds]:
        raise RunError(
            f"{broken[0]!r} of {run.root} must compute what it did when it was learnt, got "
            f"something else {when}; see pathweave verify {run.root}"
        )
    return verdicts
