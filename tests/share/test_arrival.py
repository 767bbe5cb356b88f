"""Packs that arrive: in a run of their own, or in one of the same base, or not at all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load, save

import pathweave
from pathweave.errors import BusyError
from pathweave.model.prompt import Medium
from pathweave.runs.path_directory import load_proof
from pathweave.runs.run_directory import RunDirectory
from pathweave.share import add
from pathweave.storage.atomic import sole_writer
from tests.full_disk import full_disk
from tests.share.packs import changed, edit, members, seal, tree, write
from tests.whole_runs import command, hashes, write_recipe

PROOF, TOLD = "paths/tilt/proof.safetensors", "paths/tilt/path.json"


def answers(run, recipe_file, *names):
    """What the paths of a run say to an input of each."""
    asked = [
        [
            {"type": name, "path": str(recipe_file.parent / f"{name}-test-{i}.npy")},
            {"type": "text", "text": "How is it?"},
        ]
        for name in names
        for i in range(3)
    ]
    return pathweave.load(run).ask(asked, max_tokens=8)


def soft_tokens(run, name):
    """The tokens that a path of a run makes of the inputs kept with it."""
    proof = load_proof(RunDirectory(run).path(name))
    model = pathweave.load(run).model
    media = [Medium(name, proof["features_0"].float())]
    with torch.no_grad():
        return model.soft_tokens(media, ["How is it?"])[0]


def test_an_unpacked_run_is_the_run_bit_for_bit(
    finished_run, packs, base, recipe_file, tmp_path, capsys
):
    assert command("unpack", packs / "tilt", tmp_path / "run", "--set", base, "--json") == 0
    assert json.loads(capsys.readouterr().out)["added"] == ["sound", "tilt"]
    assert hashes(tmp_path / "run").items() <= hashes(finished_run).items()
    for name in ("sound", "tilt"):
        there, here = soft_tokens(finished_run, name), soft_tokens(tmp_path / "run", name)
        assert torch.equal(there, here)
    there = answers(finished_run, recipe_file, "sound", "tilt")
    assert answers(tmp_path / "run", recipe_file, "sound", "tilt") == there
    assert any(there)
    assert command("verify", tmp_path / "run") == 0
    assert "FAIL" not in capsys.readouterr().out
    assert command("inspect", tmp_path / "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"]["curriculum"] == [
        *("sight", "sound", "tilt")
    ]


def test_a_pack_without_predecessors_goes_into_a_run_that_has_them(
    finished_run, packs, colleague, recipe_file, capsys
):
    before = tree(colleague)
    assert command("add", colleague, packs / "sound") == 0
    assert "added sound: bit-identical" in capsys.readouterr().out
    assert command("add", colleague, packs / "alone", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["added"], told["present"]) == (["tilt"], [])
    [verdict] = told["verified"]
    assert (verdict["identical"], verdict["same_machine"], verdict["elsewhere"]) == (True, True, {})
    assert hashes(colleague) == hashes(finished_run)
    for name in ("sight", "tilt"):
        assert torch.equal(soft_tokens(finished_run, name), soft_tokens(colleague, name))
    there = answers(finished_run, recipe_file, "sight", "tilt")
    assert answers(colleague, recipe_file, "sight", "tilt") == there
    del before["recipe.json"]
    assert before.items() <= tree(colleague).items()
    recipe, origin = RunDirectory(colleague).recipe(), RunDirectory(finished_run).recipe()
    assert recipe.curriculum == ("sight", "sound", "tilt")
    assert recipe.modalities["tilt"].predecessors == ("sound",)
    assert recipe.training_of("tilt") == origin.training_of("tilt")
    assert command("verify", colleague) == 0


def test_predecessors_come_along_and_what_is_there_is_not_added_twice(
    packs, colleague, finished_run, capsys
):
    assert command("add", colleague, packs / "tilt", "--json") == 0
    assert json.loads(capsys.readouterr().out)["added"] == ["sound", "tilt"]
    before = tree(colleague)
    assert command("add", colleague, packs / "tilt") == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        f"{n}: there already, with equal content" for n in ("sound", "tilt")
    ]
    assert tree(colleague) == before
    assert command("add", finished_run, packs / "tilt") == 0  # nor to the run it is from


def test_training_of_its_own_stays_with_a_path(packs, colleague, tmp_path, finished_run):
    file = changed(
        packs / "sound", tmp_path / "pack", "pack.json",
        lambda told: told["recipe"]["training"].update(steps=77),
    )  # fmt: skip
    add(colleague, file)
    recipe = RunDirectory(colleague).recipe()
    assert recipe.training_of("sound").steps == 77
    assert recipe.training_of("sight").steps == 4


def test_a_path_that_computes_something_else_is_not_added(packs, colleague, tmp_path, capsys):
    content = members(packs / "tilt")
    edit(content, TOLD, lambda told: told["proof"].update(answers=["another"] * 4))
    seal(content)
    before = tree(colleague)
    assert command("add", colleague, write(tmp_path / "pack", content)) == 2
    assert "'tilt' must compute here what it did" in (said := capsys.readouterr().err)
    assert "and other answers; nothing was added" in said
    assert tree(colleague) == before


@pytest.mark.parametrize(
    "proof",
    [{"texts": ["a"] * 9}, {"texts": []}, {"texts": 3}, {"machine": "mine"}, {"logits": None}],
)
def test_a_proof_of_something_else_is_refused(proof, packs, colleague, tmp_path, capsys):
    content = members(packs / "tilt")
    edit(content, TOLD, lambda told: told["proof"].update(proof))
    seal(content)
    before = tree(colleague)
    assert command("add", colleague, write(tmp_path / "pack", content)) == 2
    said = capsys.readouterr().err
    assert "the proof of path 'tilt' must be of its own inputs" in said or "compute here" in said
    assert tree(colleague) == before


def test_tensors_that_are_not_what_their_content_hash_says_are_refused(
    packs, colleague, tmp_path, capsys
):
    content = members(packs / "tilt")
    tensors = load(content["paths/tilt/path.safetensors"])
    tensors["queries"][0, 0] += 1e-3
    content["paths/tilt/path.safetensors"] = save(tensors)
    seal(content)
    before = tree(colleague)
    assert command("add", colleague, write(tmp_path / "pack", content)) == 2
    assert "path 'tilt' of a pack must be" in capsys.readouterr().err
    assert tree(colleague) == before


def test_what_was_recorded_elsewhere_is_told_and_rounding_is_tolerated(
    packs, colleague, tmp_path, capsys
):
    content = members(packs / "tilt")
    edit(content, TOLD, lambda told: told["proof"]["machine"].update(threads=8))
    seal(content)
    run = shutil.copytree(colleague, tmp_path / "run")
    assert command("add", run, write(tmp_path / "pack", content)) == 0
    said = capsys.readouterr().out
    assert "added tilt: bit-identical; recorded elsewhere: threads 8, here 1" in said
    proof = load(content[PROOF])
    proof["tokens_0"][0, 0] += 1e-5 * proof["tokens_0"].abs().max()
    content[PROOF] = save(proof)
    seal(content)
    assert command("add", colleague, write(tmp_path / "pack", content)) == 0
    said = capsys.readouterr().out
    assert "added tilt: answers equal, tokens differ by 1e-05 of the largest (at most 0.05" in said


def test_a_path_without_proof_is_added_and_said_to_be_unproved(packs, colleague, tmp_path, capsys):
    content = members(packs / "sound")
    edit(content, "paths/sound/path.json", lambda told: told.update(proof=None))
    del content["paths/sound/proof.safetensors"]
    edit(content, "paths/sound/path.json", lambda told: told["files"].pop("proof.safetensors"))
    seal(content)
    assert command("add", colleague, write(tmp_path / "pack", content)) == 0
    assert "added sound: no proof is kept with it" in capsys.readouterr().out


@pytest.fixture(scope="session")
def other_base(tmp_path_factory, shared_home):
    """A run whose connector was trained otherwise."""
    recipe = write_recipe(tmp_path_factory.mktemp("heat"), "heat", limit=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert command("evolve", recipe, "--out", recipe.parent / "run", "--json") == 0
    return recipe.parent / "run"


def test_a_run_of_another_base_is_refused(packs, other_base, capsys):
    before = tree(other_base)
    assert command("add", other_base, packs / "tilt") == 2
    assert "must be added to a run of base" in (said := capsys.readouterr().err)
    assert "unpack it as a run of its own" in said
    assert tree(other_base) == before


def test_a_missing_predecessor_is_named(packs, colleague, capsys):
    before = tree(colleague)
    assert command("add", colleague, packs / "alone") == 2
    said = capsys.readouterr().err
    assert "the run must have predecessor 'sound'" in said
    assert "got none; add a pack of 'sound' first" in said
    assert tree(colleague) == before


def test_another_predecessor_is_told(packs, finished_run, tmp_path, capsys):
    content = members(packs / "alone")
    edit(content, "pack.json", lambda told: told.update(left_out={"sound": "0" * 64}))
    edit(content, TOLD, lambda told: told.update(predecessors={"sound": "0" * 64}))
    seal(content)
    assert command("add", finished_run, write(tmp_path / "pack", content)) == 2
    assert "must have predecessor 'sound' (000000000000...) of path 'tilt', got another" in (
        capsys.readouterr().err
    )


def test_a_name_that_is_taken_is_refused(packs, colleague, finished_run, tmp_path, capsys):
    other = changed(
        packs / "tilt", tmp_path / "pack", "pack.json",
        lambda told: told["paths"].update(sound="0" * 64),
    )  # fmt: skip
    before = tree(finished_run)
    assert command("add", finished_run, other) == 2
    said = capsys.readouterr().err
    assert "must be free, got 'sound' (000000000000...), which the run gives to path" in said
    assert tree(finished_run) == before
    run = RunDirectory(colleague)
    declared = json.loads(run.recipe_file.read_text(encoding="utf-8"))
    declared["modalities"]["tilt"] = declared["modalities"]["sight"]
    run.recipe_file.write_text(json.dumps(declared), encoding="utf-8")
    assert command("add", colleague, packs / "tilt") == 2
    assert "which the run gives to a modality without a path" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(packs, finished_run, tmp_path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "paths/tilt")
    assert command("add", run, packs / "tilt") == 2
    assert "must be a finished run, got none of its stage 'tilt'" in capsys.readouterr().err


def test_a_run_that_is_being_written_to_is_left_alone(packs, colleague):
    with sole_writer(colleague), pytest.raises(BusyError, match="must have one writer"):
        add(colleague, packs / "tilt")


@pytest.mark.parametrize("command_", ["unpack", "add"])
def test_a_damaged_pack_leaves_nothing(command_, packs, colleague, base, tmp_path, capsys):
    content = members(packs / "tilt")
    content["paths/tilt/path.safetensors"] = content["paths/tilt/path.safetensors"][:-4] + b"else"
    file = write(tmp_path / "pack", content)
    before = tree(tmp_path)
    where = ["unpack", file, tmp_path / "out", "--set", base]
    assert command(*(where if command_ == "unpack" else ["add", colleague, file])) == 2
    assert "path.safetensors of sha256" in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command_", ["unpack", "add"])
def test_a_full_disk_leaves_nothing(command_, packs, colleague, base, tmp_path, capsys):
    before = tree(tmp_path)
    where = ["unpack", packs / "tilt", tmp_path / "out", "--set", base]
    with full_disk(15_000):
        assert (
            command(*(where if command_ == "unpack" else ["add", colleague, packs / "tilt"])) == 2
        )
    assert "cannot be written" in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_full_disk_at_the_last_moment_leaves_the_run_as_it_was(packs, colleague, capsys):
    # Everything fits but the description that is kept of the pack.
    before = tree(colleague)
    run = RunDirectory(colleague)
    (run.root / "packs/tilt.json").mkdir()
    assert command("add", colleague, packs / "tilt") == 2
    assert "cannot be written" in capsys.readouterr().err
    (run.root / "packs/tilt.json").rmdir()
    assert tree(colleague) == before
    assert not run.path("tilt").exists()
    assert command("add", colleague, packs / "tilt") == 0


def test_what_a_kill_left_is_written_over(packs, colleague):
    run = RunDirectory(colleague)
    for place in (run.path("tilt"), colleague / ".arriving"):
        place.mkdir()
        (place / "path.json").write_text("{", encoding="utf-8")
    assert command("add", colleague, packs / "tilt") == 0
    assert not (colleague / ".arriving").exists()
    assert command("verify", colleague) == 0


def test_a_directory_that_exists_is_not_unpacked_to(packs, base, tmp_path, capsys):
    assert command("unpack", packs / "tilt", tmp_path, "--set", base) == 2
    assert "must be a new directory" in capsys.readouterr().err


def test_a_pack_that_lacks_something_is_no_run_by_itself(packs, base, tmp_path, capsys):
    assert command("unpack", packs / "alone", tmp_path / "run", "--set", base) == 2
    assert "must hold the predecessors of its path" in capsys.readouterr().err
    content = members(packs / "sound")
    for member in [each for each in content if each.startswith("base/")]:
        del content[member]
    edit(content, "pack.json", lambda told: told.update(connector="left_out"))
    seal(content)
    file = write(tmp_path / "pack", content)
    assert command("unpack", file, tmp_path / "run") == 2
    assert "must hold the connector of its base" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_base_of_another_machine_is_asked_for(packs, tmp_path, capsys):
    assert command("unpack", packs / "tilt", tmp_path / "run") == 2
    assert "add --set base=DIR with yours" in capsys.readouterr().err
    assert command("unpack", packs / "tilt", tmp_path / "run", "--set", "base=nowhere") == 2
    assert "base must be here or on the hub, got 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_another_machine_is_asked_for(packs, colleague, tmp_path, capsys):
    content = members(packs / "sound")
    edit(
        content, "pack.json",
        lambda told: told["recipe"]["modalities"]["sound"]["encoder"].update(directory="ears"),
    )  # fmt: skip
    seal(content)
    file = write(tmp_path / "pack", content)
    assert command("add", colleague, file) == 2
    field = "modalities.sound.encoder.directory"
    assert f"{field} must be here or on the hub, got 'ears'" in capsys.readouterr().err
    assert command("add", colleague, file, "--set", f"{field}={tmp_path}") == 0
    encoder = RunDirectory(colleague).recipe().modalities["sound"].encoder
    assert encoder.options["directory"] == str(tmp_path)


def test_the_wrong_base_is_refused_when_an_unpacked_run_is_loaded(
    packs, other_base, tmp_path, capsys
):
    content = members(packs / "sound")
    for member in [each for each in content if each.startswith("base/")]:
        del content[member]
    edit(content, "pack.json", lambda told: told.update(connector="base"))
    seal(content)
    file = write(tmp_path / "pack", content)
    place = f"base={other_base.parent / 'base'}"
    assert command("unpack", file, tmp_path / "run", "--set", place) == 0
    assert command("verify", tmp_path / "run") == 2
    assert "path 'sound' must be loaded into base" in capsys.readouterr().err
