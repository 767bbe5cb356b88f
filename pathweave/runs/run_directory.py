"""The directory of a run: what ``evolve`` writes and every other command reads.

recipe.json          the resolved recipe
base/                the connector, once the stage that trains it is done
base_proof/          what the base makes of text and of what it reads by itself (``verify``)
paths/NAME/          one path directory per finished stage
connectors/NAME/     the connector after the newest stage, for methods that change it
scores.json          score of every test set after every stage
predictions/         answers behind the scores, and what each sample contributes to them
log.jsonl            every step and event
checkpoint/          state of the stage that is running; checkpoint-NAME/ of a later lesson of it
results.json, .png   the report
"""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathweave.errors import RunError
from pathweave.recipe.reading import dump_recipe, parse_recipe
from pathweave.recipe.schema import Recipe
from pathweave.storage.atomic import check_path, read_json, recover_directory, write_atomic


class RunDirectory:
    """Names of the files of a run.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe_file = root / "recipe.json"
        self.base = root / "base"
        self.base_proof = root / "base_proof"
        self.paths = root / "paths"
        self.connectors = root / "connectors"
        self.scores = root / "scores.json"
        self.predictions = root / "predictions"
        self.log = root / "log.jsonl"
        self.checkpoint = root / "checkpoint"
        self.results = root / "results.json"
        self.picture = root / "results.png"

    def path(self, name: str) -> Path:
        """Return the directory of one path."""
        return self.paths / name

    def connector(self, name: str) -> Path:
        """Return the directory of the connector as a stage left it, if it changed it."""
        return self.connectors / name

    def newest_connector(self, finished: Sequence[str]) -> Path | None:
        """Return the directory of the connector after the last stage that changed it, if any."""
        changed = [self.connector(name) for name in finished]
        kept = [directory for directory in changed if recover_directory(directory)]
        return kept[-1] if kept else None

    def lesson_checkpoint(self, lesson: str) -> Path:
        """Return the directory of the state of a lesson, by name; the first has none."""
        return self.root / f"checkpoint-{lesson}" if lesson else self.checkpoint

    def stage_predictions(self, after: str, name: str, dataset: str) -> Path:
        """Return the file of the answers to the compared samples of a test set after a stage."""
        return self.predictions / f"after-{after}" / f"{name}-{dataset}.jsonl"

    def whole_predictions(self, name: str, dataset: str) -> Path:
        """Return the file of the answers to a whole test set after the last stage."""
        return self.predictions / "whole" / f"{name}-{dataset}.jsonl"

    def finished(self, recipe: Recipe) -> list[str]:
        """Return the stages whose path is saved, in order."""
        done = []
        for name in recipe.curriculum:
            recover_directory(self.path(name))
            if not (self.path(name) / "path.json").is_file():
                break
            done.append(name)
        return done

    def recipe(self) -> Recipe:
        """Return the recipe of the run.

        Raises:
            RunError: If this is no directory of a run.
        """
        tree = read_json(
            self.recipe_file,
            f"{self.root} must be the directory of a run (with recipe.json)",
            "make one with: pathweave evolve RECIPE --out DIR",
            RunError,
        )
        return parse_recipe(tree, str(self.recipe_file))

    def check(self, recipe: Recipe) -> None:
        """Refuse another recipe than that of the run; one to be resumed may add stages at the end.

        Manifests and bases may lie elsewhere now, as in another clone.

        Raises:
            RunError: If the directory holds a run that differs in more than later stages.
            DiskError: If its path is not UTF-8.
        """
        check_path(self.root)
        if not self.recipe_file.exists():
            return
        before = self.recipe()
        count = len(before.curriculum)
        # What may change while a run is resumed: labels and limits.
        free = {"name", "quick", "bad_samples"}
        then, now = (
            each.cut(count).model_dump(mode="json", exclude=free) for each in (before, recipe)
        )
        _move(then, now)
        if fields := differences(then, now):
            raise RunError(
                f"{self.root} must be resumed with the recipe it was begun with (later stages may "
                f"be added at the end), got another value of {', '.join(fields[:3])}; choose "
                "another --out, or remove the directory"
            )

    def claim(self, recipe: Recipe) -> None:
        """Write the recipe of a run.

        Raises:
            RunError: If the directory holds a run of another recipe.
            DiskError: If it cannot be written.
        """
        self.check(recipe)
        write_atomic(self.recipe_file, dump_recipe(recipe).encode())


def _move(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Take over the places of files that lie elsewhere now, in recipes as plain values."""
    pairs = [(before, after)]
    for name, modality in before["modalities"].items():
        for part in ("train", "test"):
            sets = after["modalities"].get(name, {}).get(part, {})
            pairs += [(data, sets.get(key, {})) for key, data in modality[part].items()]
    for old, new in pairs:
        for field in ("base", "llm", "manifest"):
            if _is_moved(old.get(field), new.get(field)):
                old[field] = new[field]


def _is_moved(before: str | None, after: str | None) -> bool:
    """Return whether a place of the same name may stand for another.

    It may if it holds the same file, or if the other is gone. Of directories, which hold models,
    the fingerprints are compared when paths are loaded.
    """
    if before is None or after is None or Path(before).name != Path(after).name:
        return False
    if Path(before).is_file() and Path(after).is_file():
        return filecmp.cmp(before, after, shallow=False)
    return not Path(before).exists() or (Path(before).is_dir() and Path(after).is_dir())


def differences(before: Any, after: Any, at: str = "") -> list[str]:  # noqa: ANN401
    """Return the dotted fields in which two trees of plain values differ.

    Example:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
        ['a.c']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            found
            for name in {**before, **after}
            for found in differences(before.get(name), after.get(name), f"{at}.{name}".strip("."))
        ]
    return [] if before == after else [at]
