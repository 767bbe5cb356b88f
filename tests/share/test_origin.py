"""Packing: what goes into the file, and that it is always the same file."""

import json
import shutil

import pytest

from pathweave.recipe.reading import load_recipe
from pathweave.share.origin import data_of, only, placeless
from pathweave.share.pack import Pack
from tests.full_disk import full_disk
from tests.share.packs import members
from tests.tiny import write_tiny_recipe
from tests.whole_runs import SENSORS, command


def test_the_same_path_gives_the_same_bytes(finished_run, packs, base, tmp_path):
    assert command("pack", finished_run, "tilt", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == (packs / "tilt").read_bytes()
    # Also from a copy, and from the run that it was unpacked to: nothing of a machine is in it.
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    assert command("pack", copy, "tilt", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == (packs / "tilt").read_bytes()
    assert command("unpack", packs / "tilt", tmp_path / "run", "--set", base) == 0
    assert command("pack", tmp_path / "run", "tilt", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == (packs / "tilt").read_bytes()


def test_a_predecessor_packed_from_an_unpacked_run_is_the_same_file_too(packs, base, tmp_path):
    assert command("unpack", packs / "tilt", tmp_path / "run", "--set", base) == 0
    assert command("pack", tmp_path / "run", "sound", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == (packs / "sound").read_bytes()


def test_what_a_pack_says(finished_run, packs, recipe_file, capsys, tmp_path):
    contents = Pack(packs / "tilt").contents
    assert list(contents.paths) == ["sound", "tilt"]
    assert (contents.left_out, contents.connector) == ({}, "pack")
    assert contents.recipe.curriculum == ("sound", "tilt")
    assert set(contents.recipe.modalities) == {"sound", "tilt"}
    assert contents.data["tilt.train.qa"].num_samples == 24
    assert contents.data["tilt.test.qa"].num_samples == 6
    assert set(contents.data) == {
        f"{n}.{p}.qa" for n in ("sound", "tilt") for p in ("train", "test")
    }
    assert contents.results is not None
    assert contents.results.curriculum == list(SENSORS)
    alone = Pack(packs / "alone").contents
    assert (list(alone.paths), list(alone.left_out)) == (["tilt"], ["sound"])
    assert alone.connector == "left_out"
    assert alone.paths.items() <= contents.paths.items()
    assert command("pack", finished_run, "tilt", tmp_path / "pack", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["paths"] == contents.paths
    assert told["num_bytes"] == (packs / "tilt").stat().st_size


def test_no_place_of_this_machine_is_in_a_pack(packs, finished_run, recipe_file):
    for content in members(packs / "tilt").values():
        for place in (finished_run.parent, recipe_file.parent):
            assert str(place).encode() not in content


def test_places_become_names_and_ids_stay(tmp_path):
    file = write_tiny_recipe(tmp_path, "sight", "sound")
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["llm"] = "owner/name"
    tree["modalities"]["sound"]["encoder"] = {"kind": "transformers", "model": "owner/ears"}
    tree["modalities"]["sight"]["encoder"] = {"kind": "transformers", "model": "./eyes"}
    file.write_text(json.dumps(tree), encoding="utf-8")
    recipe = load_recipe(file)
    assert str(tmp_path) in recipe.model_dump_json()
    bare = placeless(recipe)
    assert str(tmp_path) not in bare.model_dump_json()
    assert (bare.base, bare.llm) == ("base", "owner/name")
    found = [bare.modalities[name].encoder.options["model"] for name in ("sight", "sound")]
    assert found == ["eyes", "owner/ears"]
    assert bare.modalities["sight"].train["qa"].manifest == "sight-train.jsonl"


def test_data_sets_that_are_gone_have_a_name_alone(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path, "sight"))
    (tmp_path / "sight-train.jsonl").unlink()
    found = data_of(recipe)
    gone, there = found["sight.train.qa"], found["sight.test.qa"]
    assert (gone.manifest, gone.sha256, gone.num_samples) == ("sight-train.jsonl", None, None)
    assert (there.manifest, there.num_samples) == ("sight-test.jsonl", 24)


def test_stages_are_cut_out_with_the_modalities_that_they_read(tmp_path):
    file = write_tiny_recipe(tmp_path, "sight", "sound", "tilt")
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["modalities"]["both"] = {"reads": ["sight", "tilt"], "predecessors": ["sound"]}
    tree["curriculum"].append("both")
    file.write_text(json.dumps(tree), encoding="utf-8")
    recipe = load_recipe(file)
    assert set(only(recipe, ["both"]).modalities) == {"both", "sight", "tilt"}
    assert only(recipe, ["both"]).modalities["both"].predecessors is None
    assert only(recipe, ["sound", "both"]).modalities["both"].predecessors == ("sound",)


@pytest.mark.parametrize(
    ("run", "name", "words"),
    [
        ("run", "tilts", "path must be one of ['sight', 'sound', 'tilt'], got 'tilts'; did you"),
        ("none", "tilt", "must be the directory of a run"),
    ],
)
def test_what_cannot_be_packed_is_refused(run, name, words, finished_run, tmp_path, capsys):
    assert command("pack", finished_run.parent / run, name, tmp_path / "pack") == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_path_is_not_packed(finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    file = run / "paths/sound/path.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert command("pack", run, "tilt", tmp_path / "pack") == 2
    assert "the file is damaged" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


def test_a_path_whose_connector_changes_is_not_packed(finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "connectors/tilt").mkdir(parents=True)
    assert command("pack", run, "tilt", tmp_path / "pack") == 2
    assert "must have one connector for all its paths" in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_pack(finished_run, packs, tmp_path, capsys):
    (tmp_path / "pack").write_bytes(b"old")
    with full_disk(2000):
        assert command("pack", finished_run, "tilt", tmp_path / "pack") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"pack": b"old"}
