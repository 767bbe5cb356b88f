"""Whole runs of the command line on invented sensors: in this process, or in one to be killed."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pathweave.cli import main
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory
from tests.tiny import write_sensor_data, write_tiny_recipe

SENSORS = ("sight", "sound", "tilt")
QUICK = {"steps": 4, "batch_size": 4, "lr": 5e-2, "warmup": 1, "save_every": 2}

# A server that has imported everything once: children start in milliseconds and may be killed.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.whole_runs", "pathweave.train.evolve"])


def write_recipe(directory: Path, *names: str, limit: int = 6, **changes) -> Path:
    """A tiny recipe whose stages take part of a second; its sets are scored by ranking."""
    recipe = write_tiny_recipe(directory, *names, **{"training": QUICK, **changes})
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    for name in names:
        tree["modalities"][name]["test"]["qa"]["metric"] = "ranking"
        for split, kept in (("train", None), ("test", limit)):
            edit_manifest(directory / f"{name}-{split}.jsonl", kept)
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    return recipe


def edit_manifest(file: Path, limit: int | None) -> None:
    """Keep the first samples and give each the choices that ranking needs."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:limit]]
    lines = [json.dumps(row | {"choices": ["low", "high"]}) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_sense(directory: Path, recipe_file: Path) -> Path:
    """Write the recipe of a fourth sensor alone, made like one of another recipe, and its data."""
    write_sensor_data(directory, "heat")
    for split in ("train", "test"):
        edit_manifest(directory / f"heat-{split}.jsonl", 8)
    known = json.loads(recipe_file.read_text(encoding="utf-8"))["modalities"]["sound"]
    text = json.dumps(known).replace("sound", "heat")
    tree = {
        "name": "heat",
        "modalities": {"heat": json.loads(text) | {"training": {"steps": 6}}},
        "curriculum": ["heat"],
        "training": {"steps": 9, "connector": True},  # of a run of its own
    }
    (directory / "recipe.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return directory / "recipe.yaml"


def command(*words: object) -> int:
    """Run ``pathweave`` in this process, as the console script does, and return its exit code."""
    before, sys.argv = sys.argv, ["pathweave", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


class Background:
    """``pathweave`` in a process of its own; whatever it prints goes to ``log``."""

    def __init__(self, log: Path, *words: object, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        home = {"PATHWEAVE_HOME": os.environ["PATHWEAVE_HOME"]}
        arguments = [str(word) for word in words], log, {**home, **(env or {})}
        self.process = _forks.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for something the process does; fail if it ends before."""
        while not reached():
            assert self.process.exitcode is None, self.log.read_text(encoding="utf-8")
            time.sleep(0.002)

    def exit_code(self) -> int:
        """Wait for the end and return the exit code; minus the signal if one ended it."""
        self.process.join(timeout=300)
        assert self.process.exitcode is not None, self.log.read_text(encoding="utf-8")
        return self.process.exitcode


def _run(words: list[str], log: Path, env: Mapping[str, str]) -> None:
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(env)
    torch.set_num_threads(1)
    sys.exit(command(*words))


def events(run: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a run's log, or those of one name."""
    log = RunDirectory(run).log
    found = (
        [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        if log.exists()
        else []
    )
    return [event for event in found if name in (None, event["event"])]


def num_lines(run: Path) -> int:
    log = RunDirectory(run).log
    return log.read_bytes().count(b"\n") if log.exists() else 0


def hashes(run: Path) -> dict[str, str]:
    """Return the content hash of every finished path: equal hashes are equal tensors."""
    paths = sorted((run / "paths").iterdir())
    return {path.name: describe_path(path)["content_hash"] for path in paths}
