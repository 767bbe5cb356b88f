"""Whole runs: what is written, what is never lost, what is refused."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import pathweave
from pathweave.evaluate.inspect import inspect_run
from pathweave.evaluate.results import Results
from pathweave.runs.run_directory import RunDirectory
from tests.full_disk import full_disk
from tests.tiny import write_sensor_data
from tests.whole_runs import SENSORS, Background, command, events, hashes, num_lines, write_recipe

PATH_FILES = {"path.json", "path.safetensors", "proof.safetensors"}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def evolve(recipe: Path, out: Path, *words: str) -> int:
    return command("evolve", recipe, "--out", out, "--json", *words)


def test_a_run_writes_exactly_what_it_should(finished_run):
    expected = {".lock", "recipe.json", "scores.json", "log.jsonl", "results.json", "results.png"}
    expected |= {"base/base.json", "base/connector.safetensors"}
    expected |= {"base_proof/proof.json", "base_proof/logits.safetensors"}
    expected |= {f"paths/{name}/{file}" for name in SENSORS for file in PATH_FILES}
    answers = {f"whole/{name}-qa" for name in SENSORS}
    for stage, after in enumerate(SENSORS):
        answers |= {f"after-{after}/{name}-qa" for name in SENSORS[: stage + 1]}
    expected |= {f"predictions/{a}.{kind}" for a in answers for kind in ("jsonl", "safetensors")}
    assert files(finished_run) == expected


def test_nothing_is_forgotten(finished_run):
    results = Results.load(finished_run / "results.json")
    assert results.curriculum == list(SENSORS)
    matrix = results.matrix
    for name in SENSORS[:2]:
        assert matrix.forgetting(2, name) == 0.0
        answers = {
            (finished_run / "predictions" / f"after-{after}" / f"{name}-qa.jsonl").read_bytes()
            for after in SENSORS[SENSORS.index(name) :]
        }
        assert len(answers) == 1
    verdicts = events(finished_run, "verified")
    first, second, third = (["base", *SENSORS[:count]] for count in (1, 2, 3))
    assert [v["path"] for v in verdicts] == [*first, *second, *third]
    assert all(v["identical"] for v in verdicts)


def test_the_results_say_what_was_trained_and_scored(finished_run):
    results = Results.load(finished_run / "results.json")
    assert [stage.modality for stage in results.stages] == list(SENSORS)
    trained = {event["stage"]: event["trained"] for event in events(finished_run, "stage")}
    assert {stage.modality: stage.trained for stage in results.stages} == trained
    assert all(stage.share < 20 for stage in results.stages[1:])
    assert results.finished_stages == [0, 1, 2]
    [dataset] = results.datasets["tilt"]
    assert (dataset.metric, dataset.num_samples, dataset.num_whole) == ("ranking", 6, 6)
    assert dataset.majority == 50.0
    assert (finished_run / "results.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_results_say_where_the_time_went_and_what_was_padding(finished_run):
    results = Results.load(finished_run / "results.json")
    environment = results.environment
    spent = {"train": [stage.seconds for stage in results.stages]}
    spent |= {
        part: [event["seconds"] for event in events(finished_run, name)]
        for part, name in (("score", "score"), ("encode", "encoded"))
    }
    assert environment.seconds == {part: round(sum(each), 1) for part, each in spent.items()}
    assert len(spent["encode"]) == 2 * len(SENSORS)
    shares = [event["padding"] for event in events(finished_run, "step")]
    assert 0 < environment.padding < 1
    assert environment.padding == pytest.approx(sum(shares) / len(shares), abs=1e-4)


def test_gate_usage_is_that_of_the_run_as_it_is_loaded(finished_run):
    usage = Results.load(finished_run / "results.json").gate_usage
    assert usage.keys() == {"tilt"}  # the only path with an earlier adapter
    assert usage["tilt"] == inspect_run(finished_run)["paths"]["tilt"]["gate_usage"]


def test_running_again_does_nothing(recipe_file, finished_run, capsys):
    before = {f: (finished_run / f).stat().st_mtime_ns for f in files(finished_run)}
    assert evolve(recipe_file, finished_run) == 0
    after = {f: (finished_run / f).stat().st_mtime_ns for f in files(finished_run)}
    assert {f for f in after if after[f] != before.get(f)} <= {
        ".lock",
        "log.jsonl",
        "recipe.json",
        "results.json",
        "results.png",
    }
    assert events(finished_run)[-1]["event"] == "session"
    assert json.loads(capsys.readouterr().out)["recipe"] == "tiny"


def test_the_peak_memory_is_that_of_the_largest_session(recipe_file, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    kept = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for earlier, expected in ((10**12, 10**12), (1, None)):
        kept["environment"]["peak_memory_bytes"] = earlier
        (run / "results.json").write_text(json.dumps(kept), encoding="utf-8")
        assert evolve(recipe_file, run) == 0
        found = Results.load(run / "results.json").environment.peak_memory_bytes
        assert found == expected if expected else 50_000_000 < found < 10**12


def test_another_recipe_is_refused(recipe_file, finished_run, capsys):
    words = ("--set", "modalities.sound.cue=hum", "--set", "training.lr=0.5")
    assert evolve(recipe_file, finished_run, *words) == 2
    error = capsys.readouterr().err
    assert "must be resumed with the recipe it was begun with" in error
    assert "modalities.sound.cue, training.lr; choose another --out" in error


def test_a_stage_may_be_added_at_the_end_and_none_taken_away(
    recipe_file, finished_run, tmp_path, capsys
):
    shorter = ("--set", "curriculum=[sight, sound]")
    assert evolve(recipe_file, tmp_path / "run", *shorter) == 0
    assert evolve(recipe_file, tmp_path / "run") == 0
    assert hashes(tmp_path / "run") == hashes(finished_run)
    capsys.readouterr()
    assert evolve(recipe_file, tmp_path / "run", *shorter) == 2
    assert "got another value of modalities.tilt, curriculum" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [2, 6, 12, 21])
def test_a_kill_at_any_moment_changes_nothing(recipe_file, finished_run, tmp_path, lines):
    out = tmp_path / "run"
    run = Background(tmp_path / "output.txt", "evolve", recipe_file, "--out", out, "--json")
    run.wait_until(lambda: num_lines(out) >= lines)
    run.signal(signal.SIGKILL)
    assert run.exit_code() == -signal.SIGKILL
    assert evolve(recipe_file, out) == 0
    assert hashes(out) == hashes(finished_run)
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == json.loads(
        (finished_run / "scores.json").read_text(encoding="utf-8")
    )


def test_ctrl_c_stops_and_a_second_run_is_refused_meanwhile(
    recipe_file, finished_run, tmp_path, capsys
):
    out, output = tmp_path / "run", tmp_path / "output.txt"
    run = Background(output, "evolve", recipe_file, "--out", out)
    run.wait_until(lambda: bool(events(out, "step")))
    run.signal(signal.SIGSTOP)
    assert evolve(recipe_file, out) == 2
    busy = f"must have one writer, but process {run.process.pid} is writing to it"
    assert busy in capsys.readouterr().err
    run.signal(signal.SIGINT)
    run.signal(signal.SIGCONT)
    assert run.exit_code() == 130, output.read_text(encoding="utf-8")
    assert "stopped in stage 'sight' after step" in output.read_text(encoding="utf-8")
    assert "run the same command again to go on" in output.read_text(encoding="utf-8")
    assert evolve(recipe_file, out) == 0
    assert hashes(out) == hashes(finished_run)


def test_a_full_disk_loses_nothing(recipe_file, finished_run, tmp_path, capsys):
    out = tmp_path / "run"
    with full_disk():
        assert evolve(recipe_file, out) == 2
    assert "recipe.json cannot be written" in capsys.readouterr().err
    # The last stage is still to be trained, and the disk is full when its state is to be saved.
    shutil.copytree(finished_run, out, dirs_exist_ok=True)
    shutil.rmtree(out / "paths" / "tilt")
    for name in ("scores.json", "log.jsonl"):
        (out / name).unlink()
    with full_disk(limit=8000):
        assert evolve(recipe_file, out) == 2
    error = capsys.readouterr().err
    assert re.search(r"checkpoint.* cannot be written: File too large; free some space", error)
    assert error.count("\n") == 1
    assert hashes(out) == {name: hashes(finished_run)[name] for name in SENSORS[:2]}
    assert evolve(recipe_file, out) == 0
    assert hashes(out) == hashes(finished_run)
    assert len(events(out, "saved")) == 1


def test_bad_samples_are_counted_and_too_many_end_the_run(tmp_path, capsys):
    recipe = write_recipe(tmp_path, "hum", training={"steps": 1, "batch_size": 2})
    write_sensor_data(tmp_path, "hum", count=200)
    test_set = tmp_path / "hum-test.jsonl"
    test_set.write_text(
        "".join(test_set.read_text(encoding="utf-8").splitlines(keepends=True)[:2]),
        encoding="utf-8",
    )
    metric = "modalities.hum.test.qa.metric=exact_match"
    (tmp_path / "hum-train-7.npy").write_bytes(b"not an array")
    assert evolve(recipe, tmp_path / "one", "--set", metric) == 0
    [bad] = events(tmp_path / "one", "bad_samples")
    assert len(bad["problems"]) == 1
    assert bad["problems"][0].startswith("hum-train-7: hum-train-7.npy must be a whole .npy")
    (tmp_path / "hum-train-8.npy").write_bytes(b"")
    (tmp_path / "hum-train-9.npy").unlink()
    train_set = tmp_path / "hum-train.jsonl"
    train_set.write_text(
        "".join(train_set.read_text(encoding="utf-8").splitlines(keepends=True)[:100]),
        encoding="utf-8",
    )
    capsys.readouterr()
    assert evolve(recipe, tmp_path / "three", "--set", metric) == 2
    error = capsys.readouterr().err
    assert "must have at most 1.0% bad samples, got 3 of 100; mend or remove them" in error
    assert all(f"hum-train-{i}: " in error for i in (7, 8, 9))
    assert not (tmp_path / "three" / "paths").exists()


def test_a_sixth_modality_needs_no_code(tmp_path, capsys):
    """A sensor that no code knows: twenty readings of an accelerometer with three axes."""
    package = Path(pathweave.__file__).parent
    assert not any(
        "vibration" in file.read_text(encoding="utf-8") for file in package.rglob("*.py")
    )
    recipe = write_recipe(tmp_path, "sight", "sound", "vibration", training={"steps": 1})
    write_sensor_data(tmp_path, "vibration", width=3)
    out = tmp_path / "run"
    words = ("--set", "modalities.vibration.encoder.width=3")
    words += ("--set", "modalities.vibration.test.qa.metric=exact_match")
    assert evolve(recipe, out, *words) == 0
    assert list(Results.load(RunDirectory(out).results).matrix.as_dict()["curriculum"]) == [
        "sight",
        "sound",
        "vibration",
    ]
    reading = tmp_path / "x.npy"
    np.save(reading, np.random.default_rng(0).normal(size=(20, 3)))
    capsys.readouterr()
    assert command("ask", out, "--vibration", reading, "How is it?", "--json") == 0
    asked = json.loads(capsys.readouterr().out)
    assert asked["prompt"][0] == {"type": "vibration", "path": str(reading)}
    assert command("verify", out) == 0
    assert "ok   vibration: bit-identical" in capsys.readouterr().out
