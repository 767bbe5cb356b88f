"""The first stage of the runs, made once."""

import pytest

from tests.methods.runner import Runner


@pytest.fixture(scope="session")
def first_stage(recipe_file, shared_home, tmp_path_factory):
    """A run of the first stage alone."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        Runner(recipe_file, root)("sequential", "run", curriculum=["sight"])
    return root / "run"


@pytest.fixture
def run(recipe_file, home, tmp_path, first_stage):
    return Runner(recipe_file, tmp_path, first_stage)
