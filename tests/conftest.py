"""Settings of every test: small models are fastest on one thread. One run for those that read."""

import pytest
import torch
from hypothesis import settings

from tests import whole_runs as runs

torch.set_num_threads(1)
collect_ignore = ["torchvision_ops.py"]  # a plug-in, and no test

# No test asserts how long something takes: on a busy machine a deadline fails by chance.
settings.register_profile("any_speed", deadline=None)
settings.load_profile("any_speed")


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    """A directory for cached features, shared by the tests that take ``home``."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(shared_home, monkeypatch):
    """Keep cached features out of the user's directory."""
    monkeypatch.setenv("PATHWEAVE_HOME", str(shared_home))
    return shared_home


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory):
    """The recipe of three sensors that most runs are made of."""
    return runs.write_recipe(tmp_path_factory.mktemp("sensors"), *runs.SENSORS)


@pytest.fixture(scope="session")
def finished_run(recipe_file, shared_home, tmp_path_factory):
    """The directory of a finished run, to be read only."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert runs.command("evolve", recipe_file, "--out", out, "--json") == 0
    return out
