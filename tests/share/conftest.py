"""A finished run, packs of its paths, and a run of its base that has the first of them."""

import shutil

import pytest

from tests.whole_runs import command


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here may read media."""


@pytest.fixture(scope="session")
def packs(finished_run, tmp_path_factory):
    """Packs of two paths, one of them with and without what it builds on; to be read only."""
    directory = tmp_path_factory.mktemp("packs")
    for name in ("sight", "sound", "tilt"):
        assert command("pack", finished_run, name, directory / name) == 0
    assert command("pack", finished_run, "tilt", directory / "alone", "--alone") == 0
    return directory


@pytest.fixture(scope="session")
def base(recipe_file):
    """The word that tells where the base of the packs is."""
    return f"base={recipe_file.parent / 'base'}"


@pytest.fixture(scope="session")
def _with_sight(packs, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("sight") / "run"
    assert command("unpack", packs / "sight", out, "--set", base) == 0
    return out


@pytest.fixture
def colleague(_with_sight, tmp_path):
    """A run of the same base with the path ``sight`` alone."""
    return shutil.copytree(_with_sight, tmp_path / "colleague")
