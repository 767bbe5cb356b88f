"""The benchmarks' own code, at sizes for a test."""

import asyncio
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import feature_store, full_size_step, gpu, profile_stage, scale, serving
from pathweave.data.examples import Examples
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.serve.engine import Asked
from pathweave.serve.in_process import InProcess
from pathweave.train import stage
from tests.tiny import chain, medium, tiny_model, write_tiny_recipe

WAYS = ("forward", "backward")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run_small(name: str, out: Path, *words: str) -> dict[str, float]:
    """Run a benchmark at small sizes and return what it wrote, by label."""
    module = importlib.import_module(f"benchmarks.{name}")
    module.main(["--small", "--rounds", "1", "--out", str(out), *words])
    found = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    return {figure["label"]: figure["value"] for figure in found["figures"]}


def test_the_full_size_step_small(tmp_path):
    figures = run_small("full_size_step", tmp_path)
    assert math.isfinite(figures["loss of the training step"])
    step = {label.partition(": ")[2] for label in figures if label.startswith("training step: ")}
    parts = {"encoder", "connector", "llm, whole sequence", "llm, head", "backward", "optimiser"}
    assert step == parts | {"llm, before the medium", "rest"}
    for name in ("image", "depth"):
        assert figures[f"answer, {name}: llm, one token each"] > 0
    before, *peaks = (size for label, size in figures.items() if label.startswith("peak, "))
    assert 0 < before <= peaks[0] <= peaks[-1]
    trained = figures["parameters, trained"]
    assert figures["from shapes, gradients"] == pytest.approx(4 * trained)
    assert figures["from shapes, optimizer"] == pytest.approx(8 * trained)


def test_weights_are_made_once_in_place_and_finite():
    with torch.device("meta"):
        module = torch.nn.ModuleDict(
            {"linear": torch.nn.Linear(7, 5), "norm": torch.nn.LayerNorm(3)}
        ).bfloat16()
    full_size_step.materialise(module)
    weight = module["linear"].weight
    assert weight.dtype == torch.bfloat16
    assert weight.unique().numel() > 20
    assert (weight.float().std() - full_size_step.STD).abs() < 0.01
    assert module["norm"].weight.tolist() == [1, 1, 1]
    assert module["norm"].bias.tolist() == [0, 0, 0]
    assert not any(p.requires_grad for p in module.parameters())


def test_large_weights_repeat_no_row(monkeypatch):
    monkeypatch.setattr(full_size_step, "BLOCK", 13)
    with torch.device("meta"):
        module = torch.nn.Linear(10, 12, bias=False)
    full_size_step.materialise(module)
    assert module.weight.isfinite().all()
    assert len(module.weight.unique(dim=0)) == 12


def test_the_sizes_are_the_papers():
    sizes = full_size_step.Sizes.full()
    with torch.device("meta"):
        config = full_size_step.InstructBlipVisionConfig(**sizes.vision)
        vision = full_size_step.empty_vision_model(config)
    assert sum(p.numel() for p in vision.parameters()) == 985_949_440
    assert (sizes.qformer.num_layers, sizes.llm["num_hidden_layers"]) == (12, 32)
    assert list(sizes.widths.values()) == [1408, 1408, 768, 512, 1408]


def test_the_feature_store_small(monkeypatch, tmp_path):
    line = ["feature_store", "--small", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", line)
    feature_store.main()
    found = json.loads((tmp_path / "feature_store.json").read_text(encoding="utf-8"))
    figures = {figure["label"]: figure["value"] for figure in found["figures"]}
    assert figures["number of files: store"] == 3
    assert figures["number of files: files"] == 200
    assert all(value > 0 for value in figures.values())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
def test_memory_small(tmp_path):
    words = [sys.executable, "-m", "benchmarks.memory", "--small", "--out", str(tmp_path)]
    subprocess.run(words, cwd=BENCHMARKS.parent, check=True, capture_output=True)
    report = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    shares, first, second, peaks, *servers = [each["value"] for each in report["figures"]]
    assert 0.5 < shares < 1  # two modalities: one connector, its path and a small second one
    assert first > 0 < second
    assert peaks == pytest.approx(second / first)
    assert len(servers) == 2
    # So small a model takes less than what libraries come to share meanwhile.
    assert all(map(math.isfinite, servers))


def test_the_profile_of_a_small_run(tmp_path):
    recipe = write_tiny_recipe(tmp_path, "sight", "sound")
    before = [stage.limited_step, PathWeave.lay_out, Examples.prompt]
    words = ["--small", "--rounds", "2", "--recipe", str(recipe), "--out", str(tmp_path / "out")]
    profile_stage.main(words)
    assert [stage.limited_step, PathWeave.lay_out, Examples.prompt] == before
    found = json.loads((tmp_path / "out" / "profile_stage.json").read_text(encoding="utf-8"))
    figures = {each["label"]: each["value"] for each in found["figures"]}
    parts = {f"{part}, {way}" for part in ("connector", "language model", "head") for way in WAYS}
    for name in ("sight", "sound"):
        shares = {part: figures[f"{name}: {part}"] for part in parts | {"optimiser", "rest"}}
        assert min(shares.values()) > 0
        assert sum(shares.values()) < 100.1
        assert 0 < figures[f"{name}: share of the peak, parts with products"] < 100
    assert 0 < figures["padding in training"] < 100
    of_phases = [v for k, v in figures.items() if k.startswith("the whole recipe: ")]
    assert sum(of_phases) == pytest.approx(100)


@pytest.mark.parametrize("name", ["connector", "llm_hosts", "sensor_inputs"])
def test_a_benchmark_runs_at_small_sizes_and_writes_its_figures(name, tmp_path):
    assert all(value > 0 for value in run_small(name, tmp_path).values())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux does")
def test_the_load_of_a_small_base(tmp_path):
    figures = run_small("load_base", tmp_path)
    assert len(figures) == 9
    assert all(value > 0 for label, value in figures.items() if label.endswith("time"))


@pytest.fixture(scope="module")
def asked():
    media = [medium(name, seed=i) for i, name in enumerate(("sight", "sound", "sight"))]
    return [Asked([one, "What is it?"], 3 + i) for i, one in enumerate(media)]


def test_serving_compares_engines_that_give_equal_answers(asked):
    model = tiny_model(*chain("sight", "sound"))
    ways = {
        serving.ALONE: InProcess(model, max_batch=1),
        serving.BATCHES: InProcess(model),
    }
    figures = {f.label: f for f in asyncio.run(serving.compare(ways, asked, [1, 8], 2, 1))}
    assert len(figures) == 6
    assert all(figure.value > 0 for figure in figures.values())
    assert figures["throughput, batches to one at a time, 8 callers"].at_least == 3
    assert not figures["throughput, batches to one at a time, 1 caller"].limit
    for engine in ways.values():
        assert asyncio.run(engine.problem()) == "the thread of the engine has ended"


def test_serving_tells_answers_that_rounding_decides_from_others(asked):
    model = tiny_model(*chain("sight", "sound"))
    found = asyncio.run(serving.answer_all(InProcess(model), asked))
    assert found == [generate(model, [one.prompt], one.max_tokens)[0] for one in asked]
    assert serving.is_tie(model, asked[0], [found[0], found[0]])
    assert not serving.is_tie(model, asked[0], [found[0], "something else at all"])
    [growth] = asyncio.run(serving.soak(model, asked, 65))
    assert growth.unit == "MiB"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inference", "peft_switching"])
def test_on_the_small_base_equal_answers_are_timed(name, tmp_path):
    figures = run_small(name, tmp_path)
    assert len(figures) > 4
    assert all(value > 0 for value in figures.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("busy", 24), ("side_by_side", 3)])
def test_processes_that_share_the_cores_are_timed(name, count, tmp_path, home):
    figures = run_small(name, tmp_path)
    assert len(figures) == count
    assert all(value > 0 for value in figures.values())


@pytest.mark.unchecked
def test_the_check_of_a_device_runs_on_a_cpu(tmp_path, capsys):
    figures = run_small("gpu", tmp_path, "--device", "cpu")
    assert figures["loss, relative difference to the CPU"] == 0
    assert figures["answers of 16 tokens equal to the CPU's"] == 1
    assert figures["graph breaks in connector and language model"] == 0
    assert figures["step of training, samples a second"] > 0
    assert any(label.startswith("BERT-base, step") for label in figures)
    if not torch.cuda.is_available():
        gpu.main([])
        assert capsys.readouterr().out.endswith("skipped: torch sees no CUDA device here\n")


@pytest.mark.slow
def test_costs_at_scale_follow_from_those_of_a_sample(capsys):
    scale.main(["--llm", "7B", "--samples", "1000000", "--modalities", "5", "--devices", "8"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    table = dict(line for line in lines if len(line) == 2)
    assert table["language model"] == "7B (6.7 B)"
    assert table["features stored, one modality"] == "1 TB"  # of 786,432 bytes a sample
    assert table["memory of a device, batch 16"] == "22 GB"
    assert table["weights gathered, a device"] == "0.0 GB/s"
    # 2.6 T operations a sample at 300 T a second
    assert table["device hours, one modality"] == "2"
