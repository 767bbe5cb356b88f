"""Two processes learn what one learns: the variables are those that ``torchrun`` sets."""

import socket

import pytest
import torch
from safetensors.torch import load_file

from tests.whole_runs import SENSORS, Background, events, hashes

# A low rate: Adam turns the rounding of a gradient near zero into a step of the whole rate.
LR, STEPS = 1e-3, 5
SETTINGS = ("training.batch_size=6", f"training.steps={STEPS}", f"training.lr={LR}")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(recipe, out, log, rank=0, world=1, port=0):
    env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    variables = {key: str(value) for key, value in env.items()} if world > 1 else {}
    words = ["evolve", recipe, "--out", out, "--json"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    return Background(log, *words, env=variables)


@pytest.fixture(scope="module")
def one_and_two(recipe_file, shared_home, tmp_path_factory):
    """The same run on one process and on two."""
    root, port = tmp_path_factory.mktemp("processes"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        runs = [start(recipe_file, root / "one", root / "one.txt")]
        for rank in range(2):
            log = root / f"two-{rank}.txt"
            runs.append(start(recipe_file, root / "two", log, rank, 2, port))
        for run in runs:
            assert run.exit_code() == 0, run.log.read_text(encoding="utf-8")
    return root / "one", root / "two"


def test_two_processes_have_the_losses_and_gradients_of_one(one_and_two):
    one, two = ([(e["stage"], e["step"]) for e in events(run, "step")] for run in one_and_two)
    assert one == two == [(name, step) for name in SENSORS for step in range(1, STEPS + 1)]
    for key, tolerance in (("loss", 1e-3), ("grad_norm", 3e-2)):
        one, two = ([e[key] for e in events(run, "step")] for run in one_and_two)
        assert two == pytest.approx(one, rel=tolerance), key


def test_two_processes_learn_the_tensors_of_one(one_and_two):
    one, two = one_and_two
    for name in hashes(one):
        a, b = (load_file(run / "paths" / name / "path.safetensors") for run in (one, two))
        for tensor in a:
            torch.testing.assert_close(a[tensor], b[tensor], atol=STEPS * LR, rtol=0)
        differences = torch.cat([(a[tensor] - b[tensor]).flatten() for tensor in a])
        assert differences.abs().mean() < LR / 10, name


def test_one_process_writes_and_scores(one_and_two):
    one, two = one_and_two
    counts = [[event["event"] for event in events(run)] for run in one_and_two]
    assert counts[0] == counts[1]
    scores = ([e["score"] for e in events(run, "score")] for run in (one, two))
    assert next(scores) == next(scores)
    assert all(event["identical"] for event in events(two, "verified"))
