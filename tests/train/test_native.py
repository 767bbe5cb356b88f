"""Runs on a pretrained base: its own path is there from the start."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from pathweave.data.manifest import write_manifest
from pathweave.runs.assistant import load
from pathweave.runs.path_directory import describe_path
from tests.published import QUESTION, picture_bytes, write_llm, write_published
from tests.whole_runs import command, events, hashes, write_recipe

TEXT = {"type": "text", "text": QUESTION}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with a published checkpoint, pictures, and data of two sensors."""
    root = tmp_path_factory.mktemp("native")
    write_recipe(root, "sound", "tilt").rename(root / "sensors.yaml")
    write_published(root / "blip", "instructblip-opt")
    rows = []
    for i in range(4):
        (root / f"picture-{i}.png").write_bytes(picture_bytes(i))
        question = [{"type": "image", "path": f"picture-{i}.png"}, TEXT]
        said = {"role": "assistant", "content": ("low", "high")[i % 2]}
        messages = [{"role": "user", "content": question}, said]
        rows.append({"id": f"picture-{i}", "messages": messages, "choices": ["low", "high"]})
    write_manifest(root / "pictures.jsonl", rows)
    return root


def plain(root):
    """A recipe of the two sensors on that base; neither stage trains the connector."""
    tree = json.loads((root / "sensors.yaml").read_text(encoding="utf-8"))
    tree["modalities"]["sound"]["training"] = {}
    tree["training"]["steps"] = 2
    tree["base"] = "blip"
    return tree


@pytest.fixture
def recipe(root):
    return plain(root)


@pytest.fixture(scope="module")
def whole(root, shared_home):
    """A finished run of that recipe, to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert evolve(root, plain(root), root / "whole") == 0
    return root / "whole"


def with_pictures(tree, root, **training):
    pictures = {"manifest": "pictures.jsonl"}
    tree["modalities"]["image"] = {
        "decoder": {"kind": "picture"},
        "encoder": {"kind": "eva-clip-g", "directory": str(root / "blip")},
        "train": {"qa": pictures},
        "test": {"qa": {**pictures, "metric": "ranking"}},
        "training": training,
    }
    tree["curriculum"] = ["image", "sound"]
    return tree


def evolve(root, tree, out, *words):
    (root / "recipe.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return command("evolve", root / "recipe.yaml", "--out", out, "--json", *words)


def test_a_curriculum_starts_with_a_new_modality(whole):
    out = whole
    assert sorted(p.name for p in (out / "paths").iterdir()) == ["sound", "tilt"]
    assert not (out / "base").exists()
    about = describe_path(out / "paths" / "sound")
    assert about["predecessors"] == {}
    assert describe_path(out / "paths" / "tilt")["predecessors"].keys() == {"sound"}
    assert command("verify", out) == 0
    assert command("inspect", out) == 0


def test_the_path_of_the_base_answers_too(root, whole, capsys):
    out = whole
    assistant = load(out)
    assert assistant.model.paths.names == ["image", "sound", "tilt"]
    assert load(out, paths=["image"]).model.paths.names == ["image"]
    picture = {"type": "image", "path": str(root / "picture-0.png")}
    capsys.readouterr()
    asked = assistant.ask([[picture, TEXT]], max_tokens=4)
    words = ("--image", picture["path"], QUESTION, "--max-tokens", 4)
    assert command("ask", out, *words) == 0
    assert command("ask", "--base", root / "blip", *words) == 0
    assert capsys.readouterr().out == 2 * f"{asked[0]}\n"
    assert command("evaluate", out, root / "pictures.jsonl", "--metric", "ranking", "--json") == 0
    [score] = json.loads(capsys.readouterr().out)
    assert score["num_samples"] == 4


def test_the_first_queries_are_those_of_the_base(root, recipe, tmp_path):
    recipe["method"]["queries"] = 4
    recipe["curriculum"] = ["sound"]
    recipe["training"].update(steps=1, lr=1e-12, weight_decay=0)
    assert evolve(root, recipe, tmp_path) == 0
    trained = load_file(tmp_path / "paths" / "sound" / "path.safetensors")["queries"]
    published = load_file(root / "blip" / "model.safetensors")["query_tokens"][0]
    assert (trained - published).abs().max() < 1e-6


def test_a_run_that_is_cut_off_goes_on(root, recipe, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "paths" / "tilt")
    (tmp_path / "cut" / "scores.json").unlink()
    assert evolve(root, recipe, tmp_path / "cut") == 0
    assert hashes(tmp_path / "cut") == hashes(whole)


def test_the_path_of_the_base_may_be_a_stage(root, recipe, tmp_path):
    """It is taken as it is, scored after every stage, and verified."""
    tree = with_pictures(recipe, root)
    assert evolve(root, tree, tmp_path / "run") == 0
    saved = load_file(tmp_path / "run" / "paths" / "image" / "path.safetensors")
    published = load_file(root / "blip" / "model.safetensors")
    assert (saved["queries"] == published["query_tokens"][0]).all()
    assert describe_path(tmp_path / "run" / "paths" / "image")["trained_parameters"] == 0
    verdicts = events(tmp_path / "run", "verified")
    assert [v["path"] for v in verdicts] == ["base", "image", "base", "image", "sound"]
    assert all(v["identical"] for v in verdicts)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text(encoding="utf-8"))["matrix"][
        "scores"
    ]
    assert len([entry for entry in scores if entry["modality"] == "image"]) == 2
    shutil.rmtree(tmp_path / "run" / "paths" / "sound")
    before = hashes(tmp_path / "run")
    assert evolve(root, tree, tmp_path / "run") == 0
    assert before.items() <= hashes(tmp_path / "run").items()
    assert load(tmp_path / "run").model.paths.names == ["image", "sound"]


def test_a_stage_of_it_may_go_on_training_the_connector(root, recipe, tmp_path):
    tree = with_pictures(recipe, root, connector=True)
    tree["curriculum"] = ["image"]
    assert evolve(root, tree, tmp_path / "run") == 0
    trained = describe_path(tmp_path / "run" / "paths" / "image")["trained_parameters"]
    saved = load_file(tmp_path / "run" / "base" / "connector.safetensors")
    published = load_file(root / "blip" / "model.safetensors")
    moved = saved["projector.linear.host.weight"] - published["language_projection.weight"]
    assert 0 < moved.abs().max() < 1
    assert trained > sum(t.numel() for t in saved.values())
    assert command("verify", tmp_path / "run") == 0


def test_a_fresh_projector_must_be_trained_first(root, recipe, tmp_path, capsys):
    write_llm(root / "wide", "llama", width=48)
    recipe["llm"] = "wide"
    recipe["curriculum"] = ["sound"]
    assert evolve(root, recipe, tmp_path / "run") == 2
    assert (
        "the first stage must train the fresh projector, got 'sound' without training.connector; "
        "set modalities.sound.training.connector to true" in capsys.readouterr().err
    )
    assert events(tmp_path / "run", "fresh_projector")
    recipe["modalities"]["sound"]["training"] = {"connector": True}
    assert evolve(root, recipe, tmp_path / "run") == 0
    # The base's own path belonged to the connector that is no more.
    assert load(tmp_path / "run").model.paths.names == ["sound"]
    assert command("verify", tmp_path / "run") == 0


def test_a_modality_with_nothing_to_learn_from_is_refused(root, recipe, tmp_path, capsys):
    recipe["modalities"]["sound"]["train"] = {}
    assert evolve(root, recipe, tmp_path) == 2
    assert "modalities.sound.train must name a data set to learn from" in capsys.readouterr().err
