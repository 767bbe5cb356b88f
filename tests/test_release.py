"""What a release holds: built, installed outside the repository, and run there."""

import dataclasses
import json

import pytest

from scripts import release as releases

DATA = "pathweave/shipped/data/mcl-mini"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return releases.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(release, tmp_path_factory):
    """A directory outside the repository, with the wheel installed in ``env``."""
    place = tmp_path_factory.mktemp("elsewhere").resolve()
    assert "recipes and grids" in release.check_installed(place)
    return place


def changed(release, **files):
    """The release with other files in its wheel; None is one that is not there."""
    kept = {name: data for name, data in release.files.items() if files.get(name, b"") is not None}
    new = {name: data for name, data in files.items() if data is not None}
    return dataclasses.replace(release, files=kept | new)


def test_sdist_and_wheel_hold_what_they_should(release):
    release.check_sdist()
    release.check_wheel()
    release.check_size()
    release.check_data()
    release.check_metadata()


def test_the_change_log_begins_with_the_version_of_the_package(release):
    assert release.check_version().startswith(f"{release.version}, 20")


@pytest.mark.parametrize(
    ("name", "data", "check", "said"),
    [
        ("pathweave/notes.txt", b"", "check_wheel", "got a foreign ['pathweave/notes.txt']"),
        ("pathweave/parts.py", None, "check_wheel", "got no ['pathweave/parts.py']"),
        ("pathweave/parts.py", b"", "check_wheel", "of the repository, got pathweave/parts.py"),
        (f"{DATA}/audio/qa-test.parquet", b"", "check_data", "audio/qa-test.parquet must have sha"),
        (f"{DATA}/audio/own.parquet", b"", "check_data", "got a foreign ['audio/own.parquet']"),
        (f"{DATA}/audio/media.parquet", None, "check_data", "got no ['audio/media.parquet']"),
    ],
)
def test_other_files_in_a_wheel_are_seen(release, name, data, check, said):
    with pytest.raises(releases.RefusedError) as refused:
        getattr(changed(release, **{name: data}), check)()
    assert said in str(refused.value)


def with_metadata(release, old, new):
    (name,) = (n for n in release.files if n.endswith("/METADATA"))
    return changed(release, **{name: release.metadata.replace(old, new, 1)})


def test_a_licence_that_is_not_named_is_seen(release):
    fewer = with_metadata(release, b" AND GPL-2.0-only", b"")
    with pytest.raises(releases.RefusedError, match=r"those of all media, got \{'GPL-2.0-only'\}"):
        fewer.check_metadata()


def test_another_version_than_that_of_the_change_log_is_seen(release):
    newer = with_metadata(release, b"\nVersion: ", b"\nVersion: 9.")
    with pytest.raises(releases.RefusedError, match=r"must begin with 9\..* and a date, got \('"):
        newer.check_version()


def test_an_installed_package_finds_what_it_carries(installed):
    found = json.loads(releases.run(installed / "env/bin/pathweave", "recipes", "--json"))
    assert {"mcl_mini", "methods/ewc"} <= {recipe["name"] for recipe in found}
    # What needs files that only the repository has is not there.
    assert "sensors" not in {recipe["name"] for recipe in found}


@pytest.mark.release
def test_an_installed_package_learns_its_own_recipe_from_any_directory(release, installed):
    assert "3 proofs hold" in release.check_running(installed)
    recipe = json.loads((installed / "run/recipe.json").read_text(encoding="utf-8"))
    manifest = recipe["modalities"]["audio"]["train"]["qa"]["manifest"]
    assert manifest.startswith(str(installed / "env"))


@pytest.mark.release
def test_an_installed_package_plans_the_whole_run(installed):
    words = ("evolve", "mcl_mini", "--quick", "--dry-run", "--out", "plan")
    said = releases.run(installed / "env/bin/pathweave", *words, cwd=installed)
    assert "point_cloud" in said
