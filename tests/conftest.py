"""Settings of every test: small models are fastest on one thread. One run for those that read."""

import os
from collections import Counter

# Before the package: what is first imported from within it would be compiled anew every time,
# since the shape checks give files that they compile another name.
import accelerate  # noqa: F401
import pytest
import torch
import transformers.modeling_utils
import transformers.models.auto.modeling_auto  # noqa: F401
from hypothesis import settings

from tests import whole_runs as runs

torch.set_num_threads(1)
# Whatever the processor multiplies: tests compare logits, and count on answers that are no ties.
os.environ.setdefault("PATHWEAVE_DTYPE", "float32")
collect_ignore = ["torchvision_ops.py"]  # a plug-in, and no test

# No test asserts how long something takes: on a busy machine a deadline fails by chance.
settings.register_profile("any_speed", deadline=None)
settings.load_profile("any_speed")


def pytest_collection_modifyitems(items):
    """Put files with slow tests first: at the end one process would have them all to itself."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


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
