"""Whole runs whose paths have adapters inside the language model."""

import json

import pytest
import torch

from pathweave.estimate.estimate import estimate_recipe
from pathweave.evaluate.inspect import inspect_run
from pathweave.evaluate.verify import verify_base, verify_run
from pathweave.recipe.reading import load_recipe
from pathweave.runs.assistant import load
from pathweave.runs.loading import load_run
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory
from tests.whole_runs import SENSORS, command, events, write_recipe

SITES = ["*", "llm/*/self_attn/*"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shared_home):
    root = tmp_path_factory.mktemp("inside")
    recipe = write_recipe(root, *SENSORS, method={"queries": 2, "rank": 2, "sites": SITES})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert command("evolve", recipe, "--out", root / "run") == 0
    return recipe, root / "run"


def test_paths_of_a_run_are_inside_and_hold(whole, home):
    _, out = whole
    run = RunDirectory(out)
    sites = {s for s in load_run(out)[0].paths["tilt"].experts if s.startswith("llm/")}
    assert len(sites) == 2 * 4
    model, _ = load_run(out)
    verdicts = verify_base(model, run) + verify_run(model, run, model.paths.names)
    assert [v.path for v in verdicts] == ["base", *SENSORS]
    assert all(v.identical for v in verdicts)
    assert command("verify", out) == 0


def test_a_base_that_has_changed_fails(whole, home):
    _, out = whole
    model, _ = load_run(out)
    with torch.no_grad():
        model.llm.lm_head.weight[5, 5] += 1.0
    [verdict] = verify_base(model, RunDirectory(out))
    assert not verdict.identical
    assert not verdict.holds


def test_answers_of_the_run_depend_on_the_medium(whole, home):
    _, out = whole
    assistant = load(out)
    question = [
        {"type": "tilt", "data": torch.randn(5, 12).numpy()},
        {"type": "text", "text": "What?"},
    ]
    [answer] = assistant.ask([question])
    assert isinstance(answer, str)
    assert assistant.ask([question, "Say hello."])[0] == answer


def test_gates_inside_the_language_model_are_inspected(whole, home):
    _, out = whole
    usage = inspect_run(out)["paths"]["tilt"]["gate_usage"]
    assert set(usage) == {"sound", "tilt"}
    assert sum(usage.values()) == pytest.approx(1, abs=1e-3)


def test_the_estimate_counts_what_is_trained(whole, home):
    recipe, out = whole
    cost = estimate_recipe(load_recipe(recipe))
    for stage in cost.stages[1:]:
        found = describe_path(RunDirectory(out).path(stage.modality))
        assert stage.trained.total == found["trained_parameters"]
        assert stage.trained.llm_adapters > 0
    plain = estimate_recipe(load_recipe(recipe, {"method.sites": ["*"]}))
    for one, other in zip(cost.stages[1:], plain.stages[1:], strict=True):
        assert one.trained.adapters == other.trained.adapters
        assert one.answer.llm > other.answer.llm
        assert one.answer.decoding > other.answer.decoding
        assert one.step.llm > other.step.llm


def test_layers_that_are_computed_again_teach_the_same(whole, home, tmp_path):
    recipe, out = whole
    again = tmp_path / "again"
    words = ("--out", again, "--set", "training.checkpointing=true")
    assert command("evolve", recipe, *words) == 0
    losses = [[e["loss"] for e in events(run, "step")] for run in (out, again)]
    # The prefix of a prompt is read with the rest there: rounding, and nothing else.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_sites_without_a_host_are_refused_before_anything_is_learnt(whole, home, tmp_path, capsys):
    recipe, _ = whole
    words = ("--out", tmp_path / "run", "--set", "method.sites=[llm/*/mlp/router]")
    assert command("evolve", recipe, *words) == 2
    said = capsys.readouterr().err
    assert "a pattern of sites must match a host" in said
    assert "training" not in said
    lora = ("--set", "method.name=lora", "--set", json.dumps(f"method.sites={SITES}")[1:-1])
    assert command("evolve", recipe, "--out", tmp_path / "lora", *lora) == 2
    assert "method.sites of lora must be of the connector" in capsys.readouterr().err
