import pytest

from tests.whole_runs import write_recipe


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("sensors"), "sight", "sound", "tilt")
