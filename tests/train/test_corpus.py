"""Corpora encoded ahead: nothing lost, nothing twice, whatever is killed."""

import json
import os
import pickle
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pathweave.data.cache import FeatureCache
from pathweave.data.manifest import Manifest
from pathweave.parts import TRUSTED
from pathweave.recipe.reading import parse_recipe
from pathweave.train import corpus
from pathweave.train.corpus_workers import Work, Worker, actors_for
from tests import whole_runs as runs
from tests.tiny import WIDTH, write_sensor_data, write_tiny_recipe

SLOW = f"""
import os
import time
from pathweave.encoders import KINDS

class Slow(KINDS["precomputed"]):
    def __init__(self):
        super().__init__(width={WIDTH})
        if "GRAPHICS" in os.environ:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["GRAPHICS"]

    def __call__(self, media):
        time.sleep(0.005)
        return super().__call__(media)
"""


@pytest.fixture
def recipe(tmp_path):
    return write_tiny_recipe(tmp_path / "data", "sight", "tilt")


def encode(capsys, recipe, *words, code=0):
    """Run the command on all training manifests, and return what it says."""
    manifests = sorted(recipe.parent.glob("*-train.jsonl"))
    capsys.readouterr()
    out = recipe.parents[1] / "features"
    assert (
        runs.command("encode", *manifests, "--recipe", recipe, "--out", out, "--json", *words)
        == code
    )
    said = capsys.readouterr()
    assert said.out.startswith("{"), said
    return json.loads(said.out)


def noted(out):
    return [fields for _, fields in _lines(out / corpus.DONE)]


def _lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_training_finds_what_was_encoded_ahead_and_encodes_nothing(
    recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path / "home"))
    manifests = sorted(recipe.parent.glob("*.jsonl"))
    out = tmp_path / "features"
    assert runs.command("encode", *manifests, "--recipe", recipe, "--out", out) == 0
    assert "96 rows: 96 media encoded, 0 found, 0 failed" in capsys.readouterr().out
    assert runs.command("cache", "--add", out) == 0
    assert runs.command("evolve", recipe, "--out", tmp_path / "run", "--json") == 0
    capsys.readouterr()
    assert runs.command("cache", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["elsewhere"] == [str(out)]
    assert (about["store"]["media"], about["store"]["files"]) == (96, 3)
    assert not list((tmp_path / "home" / "features").glob("*.features"))


def test_a_second_run_has_nothing_to_do_and_one_after_a_deletion_all(recipe, tmp_path, capsys):
    first = encode(capsys, recipe)
    assert (first["rows"], first["encoded"], first["found"], first["failed"]) == (48, 48, 0, 0)
    second = encode(capsys, recipe)
    assert (second["encoded"], second["found"]) == (0, 0)
    assert second["store"] == first["store"]
    # Without the notes each medium is looked up, and found.
    (tmp_path / "features" / corpus.DONE).unlink()
    assert encode(capsys, recipe)["found"] == 48
    assert runs.command("cache", "--clear", "all", "--dir", tmp_path / "features") == 0
    assert encode(capsys, recipe)["encoded"] == 48


def test_what_is_new_is_encoded_and_no_more(recipe, capsys):
    encode(capsys, recipe)
    write_sensor_data(recipe.parent, "gravity")
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["gravity"] = dict(tree["modalities"]["tilt"])
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    assert encode(capsys, recipe)["encoded"] == 24
    # What another decoder reads is other features: of this modality, not of the others.
    tree["modalities"]["gravity"] |= {
        "decoder": {"kind": "series", "rate": 1, "channels": WIDTH},
        "encoder": {"kind": "series", "channels": WIDTH},
    }
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    assert encode(capsys, recipe)["encoded"] == 24


def test_single_failures_are_counted_listed_and_tried_again(recipe, tmp_path, capsys):
    broken, absent = recipe.parent / "sight-train-3.npy", recipe.parent / "sight-train-7.npy"
    data = broken.read_bytes()
    broken.write_bytes(b"rubbish")
    absent.unlink()
    manifest = recipe.parent / "tilt-train.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join([*lines[:-1], "{"]), encoding="utf-8")
    for encoded in (45, 0):
        done = encode(capsys, recipe, code=1)
        assert (done["encoded"], done["failed"]) == (encoded, 3)
        listed = _lines(Path(done["failures"]))
        assert [(each["id"], each["row"]) for each in listed] == [
            ("sight-train-3", 3),
            ("sight-train-7", 7),
            (None, 23),
        ]
        assert "must be a whole" in listed[0]["reason"]
    broken.write_bytes(data)
    done = encode(capsys, recipe, code=1)
    assert (done["encoded"], done["failed"]) == (1, 2)
    absent.write_bytes(data)
    manifest.write_text("\n".join(lines), encoding="utf-8")
    done = encode(capsys, recipe)
    # The manifest has changed, so its rows are looked at again; the same medium is there already.
    assert (done["encoded"], done["found"], done["failed"]) == (1, 24, 0)
    assert not (tmp_path / "features" / corpus.FAILURES).exists()


def test_a_modality_that_is_not_declared_stops_the_work(recipe, tmp_path, capsys):
    write_sensor_data(tmp_path / "data", "touch")
    manifest = tmp_path / "data" / "touch-train.jsonl"
    words = ("--recipe", recipe, "--out", tmp_path / "features")
    assert runs.command("encode", manifest, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "unknown a part type of the manifest 'touch'" in said or "'touch'" in said


def test_a_worker_that_cannot_begin_says_why(recipe, tmp_path):
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["tilt"]["encoder"] = {"kind": "own_parts_that_are_not_there:Own"}
    work = Work(parse_recipe(tree), (str(recipe.parent / "tilt-train.jsonl"),), str(tmp_path))
    result = pickle.loads(Worker(work)({"manifest": 0, "start": 0, "stop": 4})["result"])
    assert "must be trusted to be run, got no --trust-code" in result.refused
    absent = replace(work, manifests=(str(tmp_path / "no.jsonl"),))
    result = pickle.loads(Worker(absent)({"manifest": 0, "start": 0, "stop": 4})["result"])
    assert "no.jsonl must exist, got no such file" in result.refused


@pytest.fixture
def slow_recipe(tmp_path, monkeypatch):
    """A recipe whose encoder takes its time, and a manifest of 400 rows."""
    recipe = write_tiny_recipe(tmp_path / "data", "sight")
    write_sensor_data(recipe.parent, "sight", count=400)
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["sight"]["encoder"] = {"kind": "slow_parts:Slow"}
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    (tmp_path / "slow_parts.py").write_text(SLOW, encoding="utf-8")
    root = str(Path(corpus.__file__).parents[2])
    # For processes that others start, which get no path of this one.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv(TRUSTED, "")
    yield recipe
    sys.modules.pop("slow_parts", None)


def check_all_is_there_once(recipe, out):
    """Every medium has features, none twice, and every row was noted once."""
    rows = np.zeros(400, int)
    for each in noted(out):
        rows[each["block"]["start"] : each["block"]["stop"]] += 1
    assert (rows == 1).all()
    entries = sum(file.stat().st_size // 16 for file in out.glob("*.index"))
    assert FeatureCache(out).store.size()[0] == entries == len(Manifest(_manifest(recipe))) == 400


def _manifest(recipe):
    return recipe.parent / "sight-train.jsonl"


def test_a_run_that_is_killed_goes_on_where_it_was(slow_recipe, tmp_path, capsys):
    out = tmp_path / "features"
    words = ("encode", _manifest(slow_recipe), "--recipe", slow_recipe, "--out", out, "--json")
    env = {"PYTHONPATH": os.environ["PYTHONPATH"], TRUSTED: "1"}
    run = runs.Background(tmp_path / "log", *words, "--trust-code", env=env)
    run.wait_until(lambda: (out / corpus.DONE).exists() and len(noted(out)) >= 2)
    run.signal(signal.SIGKILL)
    run.exit_code()
    before = FeatureCache(out).store.size()[0]
    done = sum(each["encoded"] for each in noted(out))
    assert 0 < done <= before < 400
    after = encode(capsys, slow_recipe, "--trust-code")
    # Only what was not noted is looked at, and only what is not there is encoded.
    assert (after["encoded"], after["found"]) == (400 - before, before - done)
    check_all_is_there_once(slow_recipe, out)


@pytest.mark.slow  # each process imports everything
def test_processes_of_which_one_is_killed_stop_and_another_run_goes_on(
    slow_recipe, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(corpus, "BLOCK_ROWS", 10)
    note = corpus._Progress.note

    def note_and_kill(self, result):
        note(self, result)
        if len(noted(tmp_path / "features")) == 3:
            os.kill(result.worker, signal.SIGKILL)

    monkeypatch.setattr(corpus._Progress, "note", note_and_kill)
    out = tmp_path / "features"
    words = ("encode", _manifest(slow_recipe), "--recipe", slow_recipe, "--out", out)
    assert runs.command(*words, "--workers", 2, "--trust-code") == 2
    assert "must live until they are done, got one that was killed" in capsys.readouterr().err
    assert os.getpid() not in {each["worker"] for each in noted(out)}
    assert 30 <= FeatureCache(out).store.size()[0] < 400
    assert encode(capsys, slow_recipe, "--trust-code")["failed"] == 0
    check_all_is_there_once(slow_recipe, out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_of_two_workers_of_which_one_is_killed_loses_and_doubles_nothing(
    slow_recipe, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("ray")
    monkeypatch.setattr(corpus, "BLOCK_ROWS", 10)
    killed = []
    note = corpus._Progress.note

    def note_and_kill(self, result):
        note(self, result)
        if len(noted(tmp_path / "features")) == 6:
            killed.append(result.worker)
            os.kill(result.worker, signal.SIGKILL)

    monkeypatch.setattr(corpus._Progress, "note", note_and_kill)
    done = encode(capsys, slow_recipe, "--ray", "local", "--workers", 2, "--trust-code")
    workers = [each["worker"] for each in noted(tmp_path / "features")]
    assert len(killed) == 1
    assert os.getpid() not in workers
    assert len({*workers}) == 3  # two, and the one that took the place of the one that was killed
    assert workers.count(killed[0]) < 30
    # What the killed one had encoded of its last block was found by whoever took that over.
    assert done["encoded"] + done["found"] == 400
    check_all_is_there_once(slow_recipe, tmp_path / "features")
    again = encode(capsys, slow_recipe, "--ray", "local", "--trust-code")
    assert (again["encoded"], again["found"], again["failed"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_a_ray_with_one_graphics_processor_one_actor_has_it(
    slow_recipe, tmp_path, capsys, monkeypatch
):
    """The Ray believes in a graphics processor that is none."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("GRAPHICS", "0")
    monkeypatch.setattr(ray, "init", partial(ray.init, num_cpus=3, num_gpus=1))
    encode(capsys, slow_recipe, "--ray", "local", "--trust-code")
    check_all_is_there_once(slow_recipe, tmp_path / "features")
    assert len({each["worker"] for each in noted(tmp_path / "features")}) == 1


@pytest.mark.parametrize(
    ("resources", "count", "expected"),
    [
        ({"CPU": 8.0}, None, (8, None)),
        ({"CPU": 8.0}, 3, (3, None)),
        ({"CPU": 8.0, "GPU": 4.0}, None, (4, 1)),
        ({"CPU": 8.0, "GPU": 4.0}, 2, (2, 1)),
        ({"CPU": 8.0, "GPU": 4.0}, 9, (9, 1 / 3)),  # three at most on each
        ({}, None, (1, None)),
    ],
)
def test_actors_share_graphics_processors_so_that_all_find_room(resources, count, expected):
    assert actors_for(resources, count) == expected


def test_an_address_at_which_there_is_no_ray_is_told(recipe, tmp_path, capsys):
    pytest.importorskip("ray")
    words = ("--recipe", recipe, "--out", tmp_path / "features", "--ray", "nowhere")
    assert runs.command("encode", recipe.parent / "tilt-train.jsonl", *words) == 2
    assert "--ray must be the address of a Ray, got 'nowhere'" in capsys.readouterr().err
