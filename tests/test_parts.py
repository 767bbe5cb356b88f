"""Parts of a user's own: the examples in whole runs, and everything that can be wrong with one."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pathweave.data.manifest import write_manifest
from pathweave.encoders import build_encoder
from pathweave.encoders.media import Array
from pathweave.errors import RecipeError
from pathweave.parts import TRUSTED, Parts
from pathweave.runs.assistant import load
from pathweave.runs.path_directory import describe_path
from tests.train.test_series import write_motion
from tests.whole_runs import command, write_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTION = {"type": "text", "text": "Where to?"}


@pytest.fixture
def here(tmp_path, home, monkeypatch):
    """A directory with the examples, in which commands are run; what they import is forgotten."""
    modules, path = set(sys.modules), list(sys.path)
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setenv(TRUSTED, "")  # so that what a command sets is taken back
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(directory, **motion):
    """A recipe of an invented sensor and then of recordings, read with parts of one's own."""
    recipe = write_recipe(directory, "sight")
    write_motion(directory, count=4)
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["motion"] = {
        "decoder": {"kind": "series", "rate": 10.0, "time": "t", "channels": ["x", "y"]},
        "encoder": {"kind": "spectrum_encoder:Spectrum", "bands": 6},
        "cue": "motion:",
        "train": {"qa": {"manifest": "motion-train.jsonl"}},
        "test": {"qa": {"manifest": "motion-test.jsonl", "metric": "within_metric:WITHIN"}},
        **motion,
    }
    tree["method"] |= {"name": "probe_first_method:METHOD", "own": {"share": 0.5}}
    recipe.write_text(json.dumps({**tree, "curriculum": ["sight", "motion"]}), encoding="utf-8")
    return recipe


def test_the_examples_are_learnt_with_scored_by_and_asked(here, capsys):
    recipe = write(here)
    recordings = [file.with_suffix(".csv") for file in here.glob("motion-test-*.csv")]
    assert command("evolve", recipe, "--out", "run", "--json") == 2
    assert (
        "must be trusted to be run, got no --trust-code; read the code, then add it"
        in capsys.readouterr().err
    )
    assert not Path("run").exists()
    assert command("evolve", recipe, "--out", "run", "--dry-run", "--trust-code") == 0
    assert command("estimate", recipe, "--trust-code") == 2
    assert "must have an encoder that is made without weights" in capsys.readouterr().err
    assert command("evolve", recipe, "--out", "run", "--json", "--trust-code") == 0
    results = json.loads(capsys.readouterr().out)
    assert results["datasets"]["motion"][0]["metric"] == "within_metric:WITHIN"
    about = describe_path(Path("run/paths/motion"))
    assert about["method"] == "probe_first_method:METHOD"
    assert set(about["sources"]) == {"spectrum_encoder:Spectrum", "probe_first_method:METHOD"}
    assert "sources" not in str(describe_path(Path("run/paths/sight"))["modality"])
    [step] = [
        json.loads(line)
        for line in Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()
        if '"event": "stage"' in line and '"motion/path"' in line
    ]
    assert step["trained"] > 0
    assert command("ask", "run", "--trust-code", "--motion", recordings[0], "Where to?") == 0
    assert command("evaluate", "run", "--trust-code", "--json") == 0
    assert command("verify", "run") == 0  # no code of a user's is run for that
    assert command("inspect", "run", "--json") == 0


def test_a_recording_in_a_format_of_ones_own(here):
    rows = [{"hz": 10.0, "rows": np.eye(9, 2, k=-i).tolist()} for i in range(6)]
    for i, row in enumerate(rows):
        Path(f"{i}.json").write_text(json.dumps(row), encoding="utf-8")
    samples = [
        {
            "id": str(i),
            "messages": [
                {"role": "user", "content": [{"type": "motion", "path": f"{i}.json"}, QUESTION]},
                {"role": "assistant", "content": ("up", "down")[i % 2]},
            ],
        }
        for i in range(6)
    ]
    write_manifest(here / "own.jsonl", samples)
    sets = {"qa": {"manifest": "own.jsonl"}}
    decoder = {"kind": "json_decoder:JsonRecording", "rate": 10.0}
    recipe = write(here, decoder=decoder, train=sets, test={})
    assert command("evolve", recipe, "--out", "run", "--json", "--trust-code") == 0
    assistant = load(here / "run")
    [answer] = assistant.ask([[{"type": "motion", "data": b'{"hz":10,"rows":[[1,2]]}'}, QUESTION]])
    assert isinstance(answer, str)
    with pytest.raises(ValueError, match=r"question 1, part 1 must have 10 Hz, got 5; resample"):
        assistant.ask([[{"type": "motion", "data": b'{"hz":5,"rows":[[1,2]]}'}, QUESTION]])


def test_what_is_not_what_it_was_is_refused_and_nothing_else_is(here, capsys):
    recipe = write(here, test={})
    assert command("evolve", recipe, "--out", "run", "--json", "--trust-code") == 0
    recording, reading = here / "motion-test-0.csv", here / "sight-test-0.npy"
    file = here / "spectrum_encoder.py"
    as_it_was = file.read_text(encoding="utf-8")
    file.write_text(as_it_was.replace("1e-6", "1e-3"), encoding="utf-8")
    capsys.readouterr()
    assert command("ask", "run", "--trust-code", "--motion", recording, "Where to?") == 2
    assert (
        "spectrum_encoder:Spectrum must be what it was when path 'motion' was learnt"
        in capsys.readouterr().err
    )
    assert command("ask", "run", "--sight", reading, "How?") == 0
    file.unlink()
    sys.modules.pop("spectrum_encoder")
    assert command("ask", "run", "--trust-code", "--motion", recording, "Where to?") == 2
    assert "must be importable, got ModuleNotFoundError" in capsys.readouterr().err
    assert command("ask", "run", "--sight", reading, "How?") == 0
    file.write_text(as_it_was, encoding="utf-8")
    assert command("ask", "run", "--trust-code", "--motion", recording, "Where to?") == 0


ENCODER = """
import torch
from pathweave.encoders.media import Array

class Own:
    accepts, width, fingerprint = Array, 2, "own"

    def __call__(self, media):
        {body}

class Bare(Own):
    width = None

def function(media):
    pass
"""


def build(here, body, name="Own"):
    module = f"own_{abs(hash((str(here), body)))}"
    (here / f"{module}.py").write_text(ENCODER.format(body=body), encoding="utf-8")
    return build_encoder(f"{module}:{name}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [torch.zeros(1, 3, 4)]", r"tensor \[units, tokens, 2\].*\[1, 3, 4\] of torch.fl"),
        ("return [torch.zeros(3, 2)]", r"got \['\[3, 2\] of torch.float32'\]; mend it"),
        ("return [torch.zeros(1, 3, 2).long()]", r"\[1, 3, 2\] of torch.int64"),
        ("return []", r"for each of 1 media, got \[\]"),
        ("return None", r"NoneType"),
        ("return torch.zeros(1, 1, 3, 2)", r"must give a list"),
        ("return 1 / 0", r"got ZeroDivisionError: division by zero \(own_\d+\.py, line 9\); mend"),
    ],
)
def test_an_encoder_that_gives_something_else_is_told(here, monkeypatch, body, message):
    monkeypatch.setenv(TRUSTED, "1")
    encoder = build(here, body)
    with pytest.raises(ValueError, match=message):
        encoder([Array(np.zeros((3, 2), dtype=np.float32))])


def test_features_of_an_encoder_are_kept_by_its_source(here, monkeypatch):
    monkeypatch.setenv(TRUSTED, "1")
    one, other = build(here, "return media"), build(here, "return list(media)")
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == build(here, "return media").fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spectrum_encoder:Spectra", r"importable, got AttributeError: .*Spectra.*; install its"),
        ("no.such:thing", r"importable, got ModuleNotFoundError: No module named 'no'"),
        (":Spectrum", r"importable, got ValueError: Empty module name"),
        ("within_metric:WITHIN", r"must be a class with accepts and __call__ .* got Metric; see"),
        ("probe_first_method:learn", r"got function; see docs/own_parts.md"),
        ("json_decoder:JsonRecording", r"got the class JsonRecording"),
        ("spectrum_encoder", r"encoder must be one of .* package.module:name"),
    ],
)
def test_what_is_no_encoder_is_told_when_the_recipe_is_read(here, monkeypatch, name, message):
    monkeypatch.setenv(TRUSTED, "1")
    with pytest.raises(RecipeError, match=message):
        build_encoder(name)


def test_options_and_attributes_of_an_encoder_are_checked(here, monkeypatch):
    monkeypatch.setenv(TRUSTED, "1")
    with pytest.raises(RecipeError, match=r"field bnads must be one of \['bands'\]"):
        build_encoder("spectrum_encoder:Spectrum", bnads=3)
    with pytest.raises(RecipeError, match=r"must have the attribute width, int, got None"):
        build(here, "return media", "Bare")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {"name": "probe_first_method:METHOD", "own": {"shore": 1}}}, r"own\.shore"),
        ({"method": {"name": "probe_first_method:METHOD", "own": {"share": 2}}}, r"own\.share"),
        (
            {"method": {"name": "within_metric:WITHIN"}},
            r"must be a pathweave\.methods\.Method, got",
        ),
        (
            {"method": {"name": "adapters", "own": {"share": 1}}},
            r"own must go with a method of you",
        ),
    ],
)
def test_a_method_and_its_options_are_checked_when_the_recipe_is_read(
    here, capsys, changes, message
):
    recipe = write(here)
    tree = json.loads(recipe.read_text(encoding="utf-8")) | changes
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    assert command("evolve", recipe, "--out", "run", "--trust-code") == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert not Path("run").exists()


def test_a_metric_or_a_method_that_fails_loses_nothing(here, capsys):
    recipe, metric, method = write(here), here / "within_metric.py", here / "probe_first_method.py"
    right = metric.read_text(encoding="utf-8")
    good = method.read_text(encoding="utf-8")
    metric.write_text(right.replace("100.0 *", "1 / 0 *"), encoding="utf-8")
    bad = good.replace("yield context", "raise KeyError('no')\n    yield context", 1)
    method.write_text(bad, encoding="utf-8")
    assert command("evolve", recipe, "--out", "run", "--trust-code") == 2
    assert "must learn stage 'motion', got KeyError: 'no' (probe_first" in capsys.readouterr().err
    assert Path("run/paths/sight").exists()
    method.write_text(good, encoding="utf-8")
    sys.modules.pop("probe_first_method")
    assert command("evolve", recipe, "--out", "run", "--trust-code") == 2
    assert "must measure every answer, got ZeroDivisionError" in capsys.readouterr().err
    assert Path("run/paths/motion").exists()
    metric.write_text(right, encoding="utf-8")
    sys.modules.pop("within_metric")
    assert command("evolve", recipe, "--out", "run", "--trust-code") == 0


def test_names_of_the_package_are_told_and_need_no_trust(monkeypatch):
    monkeypatch.setenv(TRUSTED, "")
    parts = Parts("metric", {"exact": 1}, "a number", lambda part: isinstance(part, int))
    assert list(parts) == ["exact"]
    assert parts["exact"] == 1
    assert parts.check("exact") == "exact"
    assert parts.check("my.own:metric") == "my.own:metric"
    with pytest.raises(RecipeError, match="did you mean 'exact'"):
        parts["exakt"]
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        parts.check("exakt")
    with pytest.raises(RecipeError, match=r"metric 'my\.own:metric' is code and must be trusted"):
        parts["my.own:metric"]
