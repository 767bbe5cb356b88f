"""The main job, whole, on the real small base and the shipped benchmark (``--quick``)."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pathweave.data.manifest import Manifest
from pathweave.evaluate.results import Results
from pathweave.runs.loading import load_base
from tests.whole_runs import command, events

ROOT = Path(__file__).parents[1]
SENSES = ["image", "video", "audio", "depth", "point_cloud"]
RECIPE = ROOT / "recipes/mcl_mini.yaml"
QUICK = ("--quick", "--set", "evaluation.subset=8")


@pytest.fixture(scope="module", autouse=True)
def users_dtype():
    """What the processor multiplies, as for a user; other tests compute in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PATHWEAVE_DTYPE", raising=False)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, users_dtype) -> Path:
    """A run in a process of its own, as a user starts it; to be read only."""
    out = tmp_path_factory.mktemp("run") / "quick"
    line = [sys.executable, "-m", "pathweave.cli", "evolve", RECIPE, "--out", out, *QUICK]
    # A proof holds to the last bit with as many threads: here all tests have one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, line)), cwd=ROOT, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def told(capsys, *words: object) -> str:
    """What a command prints that goes well."""
    capsys.readouterr()
    code = command(*words)
    printed = capsys.readouterr()
    assert code == 0, printed.err[-2000:]
    assert printed.out.strip()
    return printed.out


@pytest.mark.slow
def test_five_real_modalities_are_learnt_in_turn_and_none_is_forgotten(run):
    results = Results.load(run / "results.json")
    assert results.curriculum == SENSES
    for stage in range(1, 5):
        assert results.matrix.forgetting_mean(stage) == 0.0
        assert all(results.matrix.forgetting(stage, name) == 0.0 for name in SENSES[:stage])
    for name in SENSES:
        losses = [e["loss"] for e in events(run, "step") if e["stage"] == name]
        # Halves, since batches of questions and of captions differ more than a few steps teach.
        half = len(losses) // 2
        assert mean(losses[half:]) < mean(losses[:half])
    verdicts = events(run, "verified")
    assert len(verdicts) == 5 + 1 + 2 + 3 + 4 + 5  # the base each time, and all paths so far
    assert all(e["identical"] for e in verdicts)


@pytest.mark.slow
def test_the_connector_that_a_run_has_trained_is_a_base_for_other_recipes(run, capsys):
    trained, fresh = load_base(str(run / "base")), load_base("mini")
    saved = load_file(run / "base" / "connector.safetensors")
    assert trained.connector_state().keys() == saved.keys()
    assert all(torch.equal(t, saved[n]) for n, t in trained.connector_state().items())
    assert trained.fingerprint() != fresh.fingerprint()
    told(capsys, "estimate", RECIPE, "--set", f"base={run / 'base'}")


@pytest.mark.slow
def test_inspect_and_ask_work_on_the_run(run, tmp_path, capsys):
    inspected = json.loads(told(capsys, "inspect", run, "--json"))
    assert inspected["paths"]["audio"]["predecessors"] == ["video"]
    shares = inspected["paths"]["point_cloud"]["gate_usage"]
    assert set(shares) == set(SENSES[1:])
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
    media = []
    for name in ("image", "audio", "point_cloud"):
        manifest = Manifest(ROOT / f"data/mcl-mini/{name}/qa-test.parquet")
        file = tmp_path / f"{name}.bin"
        file.write_bytes(manifest.read_media(manifest[0].prompt[0]))
        media += [f"--{name.replace('_', '-')}", str(file)]
    asked = json.loads(told(capsys, "ask", run, *media, "What is this?", "--json"))
    assert isinstance(asked["answer"], str)


@pytest.mark.slow
def test_the_commands_to_begin_with_work_as_they_stand(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/start.md")]
    lines = [line for page in pages for line in page.splitlines() if "runs/mcl_mini" in line]
    typed = {line.partition("#")[0].strip() for line in lines if line.startswith("pathweave ")}
    commands = [shlex.split(line)[1:] for line in sorted(typed)]
    # What talks until it is stopped has tests of its own, and so has the learning.
    commands = [words for words in commands if words[0] not in ("chat", "serve", "evolve")]
    assert {words[0] for words in commands} == {"ask", "inspect", "verify", "evaluate", "pack"}
    printed = {
        words[0]: told(capsys, *(run if word == "runs/mcl_mini" else word for word in words))
        for words in commands
    }
    proved = [f"ok   {name}: bit-identical" for name in ("base", *SENSES)]
    assert printed["verify"].splitlines()[:6] == proved


@pytest.mark.slow
def test_the_python_of_the_readme_asks_the_run_about_the_examples(run, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(block.replace("runs/mcl_mini", str(run)), "README.md", "exec"), {})
    assert len(ast.literal_eval(capsys.readouterr().out)) == 2


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(run, capsys):
    before = events(run)
    again = json.loads(told(capsys, "evolve", RECIPE, "--out", run, *QUICK, "--json"))
    assert again["curriculum"] == SENSES
    assert [event["event"] for event in events(run)[len(before) :]] == ["session"]
    assert events(run)[: len(before)] == before


def write_recordings(directory):
    """A motor that runs smoothly, knocks or whirrs, as CSV files in a folder each."""
    random = np.random.default_rng(0)
    times = np.arange(100) / 50
    waves = {
        "smooth": 0 * times,
        "knocking": 1.0 * (times % 0.5 < 0.06),
        "whirring": np.sin(90 * times),
    }
    for name, wave in waves.items():
        (directory / "recordings" / name).mkdir(parents=True)
        for i in range(8):
            noise = 0.2 * random.normal(size=(len(times), 3))
            values = 9.81 * np.array([0, 0, 1]) + 3 * wave[:, None] + noise
            rows = [
                ",".join(f"{v:.4f}" for v in (t, *row))
                for t, row in zip(times, values, strict=True)
            ]
            text = "\n".join(["t,ax,ay,az", *rows])
            (directory / "recordings" / name / f"{i:03}.csv").write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_leads_from_csv_files_to_an_answer(run, tmp_path, capsys, monkeypatch):
    """Its commands as they stand, with fewer steps; earlier paths stay as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mcl_mini").symlink_to(run)
    write_recordings(tmp_path)
    tutorial = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```sh\n(.*?)```", tutorial, re.DOTALL)
    lines = first.strip().splitlines()
    assert len(lines) <= 40
    assert [line.split()[1] for line in lines] == ["modality", "data", "extend", "ask", "inspect"]
    _type(lines, capsys)
    for name in SENSES:
        place = f"paths/{name}/path.safetensors"
        assert (tmp_path / "runs/with_vibration" / place).read_bytes() == (run / place).read_bytes()
    (code,) = re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL)
    assert len(code.splitlines()) <= 20
    (tmp_path / "spectrum.py").write_text(code, encoding="utf-8")
    (line,) = re.findall(r"```yaml\n(.*?)```", tutorial, re.DOTALL)
    recipe = yaml.safe_load((tmp_path / "vibration/recipe.yaml").read_text(encoding="utf-8"))
    recipe["modalities"]["vibration"] |= yaml.safe_load(line)
    recipe["modalities"]["vibration"].pop("patches")
    (tmp_path / "vibration/spectrum.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    _type(second.strip().splitlines(), capsys)


def _type(lines, capsys):
    """Run the commands of a document as they stand, with fewer steps."""
    for line in lines:
        words = shlex.split(line.replace("worn", "knocking"))[1:]
        few = ["--set", "modalities.vibration.training.steps=8"] if words[0] == "extend" else []
        told(capsys, *words, *few)
