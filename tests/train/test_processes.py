"""Several processes learn what one learns: the variables are those that ``torchrun`` sets."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import time

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from pathweave.errors import RunError
from pathweave.model.generate import generate
from pathweave.model.llm_hosts import decoder_layers
from pathweave.train.processes import Processes, lost_processes
from tests.tiny import chain, medium, tiny_model
from tests.whole_runs import SENSORS, Background, events, hashes, write_recipe, write_sense

# A low rate: Adam turns the rounding of a gradient near zero into a step of the whole rate.
LR, STEPS = 1e-3, 5
SETTINGS = (
    # Of two processes one has three samples, in two passes, and the other two, in one.
    *("training.batch_size=5", "training.micro_batch=2"),
    *("evaluation.subset=4", "evaluation.batch_size=2", "bad_samples=0.5"),
    *(f"training.steps={STEPS}", f"training.lr={LR}", "training.medium_every=2"),
    'method.sites=["*", "llm/*/self_attn/*"]',
)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def variables(rank, world, port, **others):
    if world == 1:
        return {}
    env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return {key: str(value) for key, value in (env | others).items()}


def start(recipe, out, logs, world=1, **env):
    """Start the processes of a run."""
    words = ["evolve", recipe, "--out", out, "--json"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    return start_all(words, logs / out.name, world, **env)


def start_all(words, log, world=1, **env):
    """Start the processes of a command; each writes to a log of its own."""
    port = free_port()
    return [
        Background(
            log.with_name(f"{log.name}-{rank}.txt"),
            *words,
            env=variables(rank, world, port, **env),
        )
        for rank in range(world)
    ]


def finish(processes):
    for run in processes:
        assert run.exit_code() == 0, run.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Of the last stage one training sample has a medium: most shares, and batches, have none.

    Its test set has a medium that cannot be read. The second stage is scored by what is generated.
    """
    directory = tmp_path_factory.mktemp("few_media")
    file = write_recipe(directory, *SENSORS)
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["modalities"]["sound"]["test"]["qa"]["metric"] = "exact_match"
    file.write_text(json.dumps(tree), encoding="utf-8")
    (directory / "tilt-test-1.npy").write_bytes(b"no array")
    manifest = directory / "tilt-train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows[1:]:
        asked = row["messages"][0]
        asked["content"] = [part for part in asked["content"] if part["type"] == "text"]
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def runs(recipe, shared_home, tmp_path_factory):
    """The same run on one process, on two, and on two that share out the language model."""
    root = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        # Features are in the cache then.
        finish(start(recipe, root / "one", root))
        finish(start(recipe, root / "two", root, 2))
        finish(start(recipe, root / "shares", root, 2, ACCELERATE_USE_FSDP="true"))
    return root


@pytest.mark.parametrize("other", ["two", "shares"])
def test_two_processes_have_the_losses_and_gradients_of_one(runs, other):
    one, two = ([(e["stage"], e["step"]) for e in events(runs / n, "step")] for n in ("one", other))
    assert one == two == [(name, step) for name in SENSORS for step in range(1, STEPS + 1)]
    for key, tolerance in (("loss", 1e-3), ("grad_norm", 3e-2)):
        one, two = ([e[key] for e in events(runs / n, "step")] for n in ("one", other))
        assert two == pytest.approx(one, rel=tolerance), key
    assert one.count(0.0) > STEPS // 2  # whole batches without a medium


def assert_alike(one, two):
    for name in hashes(one):
        a, b = (load_file(run / "paths" / name / "path.safetensors") for run in (one, two))
        for tensor in a:
            torch.testing.assert_close(a[tensor], b[tensor], atol=STEPS * LR, rtol=0)
        differences = torch.cat([(a[tensor] - b[tensor]).flatten() for tensor in a])
        assert differences.abs().mean() < LR / 10, name


@pytest.mark.parametrize("other", ["two", "shares"])
def test_two_processes_learn_the_tensors_of_one(runs, other):
    assert_alike(runs / "one", runs / other)


@pytest.mark.parametrize("other", ["two", "shares"])
def test_one_process_writes(runs, other):
    one, two = ([e["event"] for e in events(runs / name)] for name in ("one", other))
    assert one == two
    one, two = ([e["score"] for e in events(runs / name, "score")] for name in ("one", other))
    assert one == two
    assert all(event["identical"] for event in events(runs / other, "verified"))


def scored(run):
    """All that scoring leaves behind, to the last bit, but for the time it took."""
    files = [run / "scores.json", *sorted((run / "predictions").rglob("*.*"))]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    bad = {json.dumps(event["problems"]) for event in events(run, "bad_samples")}
    results.pop("environment")
    return {file.relative_to(run): file.read_bytes() for file in files}, results, bad


@pytest.mark.parametrize(
    ("world", "env"),
    [(3, {}), pytest.param(2, {"ACCELERATE_USE_FSDP": "true"}, marks=pytest.mark.slow)],
)
def test_processes_score_together_what_one_scores(recipe, runs, home, tmp_path, world, env):
    """Of a set there are two batches, of its rest there is one, and one question without media."""
    again = tmp_path / "again"
    shutil.copytree(runs / "one", again)
    (again / "scores.json").unlink()
    shutil.rmtree(again / "predictions")
    finish(start(recipe, again, tmp_path, world, **env))
    (files, *others), found = scored(runs / "one"), scored(again)
    assert found == (files, *others)
    assert len(files) == 1 + 2 * (
        6 + 3
    )  # answers and statistics after each stage, and of the whole
    assert len(others[1]) == 1


def told(words, log, world=1, **env):
    """What a command prints as JSON: one line, by the first process alone."""
    made = start_all([*words, "--json"], log, world, **env)
    finish(made)
    lines = [
        [line for line in run.log.read_text(encoding="utf-8").splitlines() if line[0] in "[{"]
        for run in made
    ]
    assert list(map(len, lines)) == [1] + [0] * (world - 1)
    return json.loads(lines[0][0])


@pytest.mark.parametrize(
    ("world", "env"),
    [(2, {}), pytest.param(2, {"ACCELERATE_USE_FSDP": "true"}, marks=pytest.mark.slow)],
)
def test_processes_evaluate_together_what_one_evaluates(runs, home, tmp_path, world, env):
    words = ["evaluate", runs / "one"]
    one, found = told(words, tmp_path / "one"), told(words, tmp_path / "two", world, **env)
    assert found == one
    assert [score["set"] for score in one] == [f"{name}/qa" for name in SENSORS]
    assert [len(score["bad"]) for score in one].count(1) == 1


def test_processes_that_read_other_samples_do_not_evaluate(recipe, runs, home, tmp_path):
    port, both = free_port(), []
    for rank in (0, 1):
        directory = tmp_path / str(rank)
        shutil.copytree(recipe.parent, directory)
        manifest = directory / "sound-test.jsonl"
        lines = manifest.read_text(encoding="utf-8").splitlines()
        manifest.write_text("\n".join(lines[rank : rank + 3]) + "\n", encoding="utf-8")
        words = ["evaluate", runs / "one", manifest, "--json"]
        log = tmp_path / f"{rank}.txt"
        both.append(Background(log, *words, env=variables(rank, 2, port)))
    for run in both:
        assert run.exit_code() == 2
        said = run.log.read_text(encoding="utf-8")
        assert "error: all processes must read the same samples of" in said
        assert "Traceback" not in said


def test_two_processes_extend_a_run_as_one_does(recipe, runs, home, tmp_path):
    sense = write_sense(tmp_path, recipe)
    before, made = hashes(runs / "one"), {}
    for world in (1, 2):
        out = tmp_path / f"by-{world}"
        words = ["extend", runs / "one", sense, "--out", out]
        made[world] = told(words, tmp_path / f"log-{world}", world)
        assert hashes(out).items() > before.items()
    assert [each["holds"] for each in made[2]["verified"]] == [True] * (1 + len(SENSORS))
    assert made[2]["added"][0]["trained"] == made[1]["added"][0]["trained"]
    assert_alike(tmp_path / "by-1", tmp_path / "by-2")


def test_a_request_to_one_stops_all_and_other_numbers_go_on(recipe, runs, home, tmp_path):
    out = tmp_path / "run"
    both = start(recipe, out, tmp_path, 2)
    both[1].wait_until(lambda: len(events(out, "step")) > STEPS)
    both[1].signal(signal.SIGINT)
    assert [run.exit_code() for run in both] == [130, 130]
    last = events(out, "step")[-1]
    assert (last["stage"], last["step"] < STEPS) == ("sound", True)
    for world in (1, 3):
        again = tmp_path / f"by-{world}"
        shutil.copytree(out, again)
        finish(start(recipe, again, tmp_path, world))
        assert_alike(runs / "one", again)
        steps = [(e["stage"], e["step"]) for e in events(again, "step")]
        assert steps == [(name, step) for name in SENSORS for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_others_soon(recipe, home, tmp_path, killed):
    out = tmp_path / "run"
    both = start(recipe, out, tmp_path, 2)
    both[1].wait_until(lambda: len(events(out, "step")) >= 2)
    both[killed].signal(signal.SIGKILL)
    began = time.monotonic()
    assert both[1 - killed].exit_code() == 2
    assert time.monotonic() - began < 60
    said = both[1 - killed].log.read_text(encoding="utf-8")
    assert "all processes of a run must stay to its end, got one that has ended" in said
    assert "Traceback" not in said


def group(task, world=2, **env):
    """Let processes of their own do something together; a failed assertion in one fails."""
    port, forks = free_port(), multiprocessing.get_context("forkserver")
    made = [
        forks.Process(target=_member, args=(task, variables(rank, world, port, **env)))
        for rank in range(world)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join(timeout=120)
    assert [process.exitcode for process in made] == [0] * world


def _member(task, env):
    os.environ.update(env)
    torch.set_num_threads(1)
    task(Processes(Accelerator()))
    torch.distributed.destroy_process_group()


def _add_up(processes):
    parameters = [
        nn.Parameter(torch.zeros(2, 3)),
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(4)),
    ]
    parameters[0].grad = torch.full((2, 3), processes.index + 1.0)
    if processes.index == 1:
        parameters[1].grad = torch.ones(1)
    assert processes.add_up(parameters, [processes.index, 0.5]) == [1.0, 1.0]
    assert parameters[0].grad.tolist() == [[3.0] * 3] * 2
    assert parameters[1].grad.tolist() == [1.0]
    assert parameters[2].grad is None


def test_gradients_are_summed_and_what_no_process_reached_has_none():
    group(_add_up)


def _differ(processes):
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, processes.index)
    processes.start_alike(module)
    assert not module.weight.any()
    processes.check_same("a", "all must read alike", "look")
    with pytest.raises(
        RunError, match=r"^all must read alike, got others in another of 2 processes; "
    ):
        processes.check_same(str(processes.index), "all must read alike", "look")
    failure = pytest.raises(
        (RunError if processes.index else ZeroDivisionError), match=r"the first process|division"
    )
    with failure:
        processes.alone(lambda: 1 / 0)
    processes.alone(lambda: None)


def test_processes_that_differ_are_refused_and_an_error_of_the_first_reaches_all():
    group(_differ)


def _share_out(processes):
    for count in (0, 1, 3, 5):
        by = processes.spread(lambda task: (task, processes.index), range(count))
        assert list(by) == [(task, task % processes.count) for task in range(count)]
    with pytest.raises(RunError if processes.index != 1 else ZeroDivisionError), lost_processes():
        list(processes.spread(lambda task: 1 // task, [1, 0, 1, 1]))


@pytest.mark.parametrize("world", [2, 3])
def test_tasks_are_shared_out_and_a_process_that_fails_ends_all(world):
    group(_share_out, world)


def _in_shares(processes):
    sites = ("*", "llm/*/self_attn/*")
    prompts = [[medium("sound", seed=1), "What?"], ["hello"]]
    whole, model = (tiny_model(*chain("sight", "sound", sites=sites)) for _ in range(2))
    fingerprint = model.base.fingerprint()
    expected, said = whole.logits_after(prompts), generate(whole, prompts, 4)
    processes.shard(model)
    for one, other in zip(*map(decoder_layers, (whole.llm, model.llm)), strict=True):
        held = sum(p.to_local().untyped_storage().nbytes() for p in other.parameters())
        assert held == sum(p.nbytes for p in one.parameters()) / 2
    assert model.base.fingerprint() == fingerprint
    assert torch.equal(model.logits_after(prompts), expected)
    assert torch.equal(model.embed_prompts(prompts)[0], whole.embed_prompts(prompts)[0])
    processes.alone(lambda: _says(model, prompts, said))
    whole.prefixes.are_shareable, gradients = False, []
    for each in (whole, model):
        path = each.train().paths["sound"].requires_grad_(True)
        for each.checkpointing in (False, True):
            # One of them reads a text alone, and takes part in the pass backwards.
            loss, _ = each(prompts[processes.index :], ["a", "b"][processes.index :])
            if loss.requires_grad:
                loss.backward()
            gradients.append([p.grad for p in path.parameters()])
            each.zero_grad(set_to_none=True)
    for found in gradients[1:]:
        for a, b in zip(gradients[0], found, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
    processes.alone(lambda: _says(model.eval(), prompts, said))


def _says(model, prompts, said):
    assert generate(model, prompts, 4) == said


def test_a_language_model_in_shares_computes_what_the_whole_one_does():
    group(_in_shares, ACCELERATE_USE_FSDP="true")
