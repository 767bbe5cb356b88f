"""Whole runs on a vision LLM: it is given senses, and keeps reading pictures by itself."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pathweave.data.manifest import write_manifest
from pathweave.data.messages import Part
from pathweave.data.readers import FeatureReader
from pathweave.errors import RequestError
from pathweave.model.prompt import Medium
from pathweave.runs.assistant import load, load_alone
from pathweave.runs.path_directory import describe_path
from tests.train.test_series import MOTION, write_motion
from tests.vision_llms import picture, write_vision_llm
from tests.whole_runs import command, events, hashes, write_recipe

TEXT = {"type": "text", "text": "What is it?"}
SYSTEM = {"role": "system", "content": "Be brief."}
METHOD = {"queries": 2, "rank": 2, "reducer": {"layers": 1, "width": 16}}


HEAT = {
    "decoder": {"kind": "picture"},
    "encoder": {"kind": "base", "pool": 4},
    "cue": "heat:",
    "train": {"qa": {"manifest": "heat.jsonl"}},
    "test": {"qa": {"manifest": "heat.jsonl", "metric": "ranking"}},
    "training": {"medium_every": 2},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with a vision LLM, pictures, and data of three senses."""
    root = tmp_path_factory.mktemp("vision")
    write_vision_llm(root / "llava", "llava")
    write_recipe(root, "sound", "tilt", limit=4).rename(root / "sensors.yaml")
    write_motion(root)
    for i in range(4):
        picture(seed=i).save(root / f"picture-{i}.png")
    for kind in ("image", "heat"):
        rows = []
        for i in range(4):
            question = [{"type": kind, "path": f"picture-{i}.png"}, TEXT]
            if kind == "heat":  # beside the photograph, which the base reads by itself
                question.insert(0, {"type": "image", "path": f"picture-{i}.png"})
            said = {"role": "assistant", "content": ("low", "high")[i % 2]}
            messages = [SYSTEM, {"role": "user", "content": question}, said]
            rows.append({"id": f"{kind}-{i}", "messages": messages, "choices": ["low", "high"]})
        write_manifest(root / f"{kind}.jsonl", rows)
    return root


def plain(root):
    """A recipe of two senses on that base: features of an array, and heat seen by its tower."""
    tree = json.loads((root / "sensors.yaml").read_text(encoding="utf-8"))
    sound = tree["modalities"]["sound"] | {"training": {}}
    tree |= {"modalities": {"sound": sound, "heat": HEAT}, "curriculum": ["sound", "heat"]}
    return tree | {"base": "llava", "method": METHOD}


@pytest.fixture
def recipe(root):
    return plain(root)


@pytest.fixture(scope="module")
def run(root, shared_home):
    """A finished run of that recipe, to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert evolve(root, plain(root), root / "run") == 0
    return root / "run"


def evolve(root, tree, out, *words):
    (root / "recipe.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return command("evolve", root / "recipe.yaml", "--out", out, "--json", *words)


def test_a_vision_llm_is_given_senses(run):
    assert sorted(p.name for p in (run / "paths").iterdir()) == ["heat", "sound"]
    assert not (run / "base").exists()
    assert describe_path(run / "paths" / "heat")["predecessors"].keys() == {"sound"}
    assert events(run, "medium_use")
    assert command("verify", run) == 0


def test_all_is_here_says_the_dry_run(root, recipe, tmp_path, capsys):
    assert evolve(root, recipe, tmp_path / "run", "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["problems"] == []
    assert plan["stages"][1]["medium_bytes"] == 5 * 24 * 2  # 17 tokens, 4 averaged to 1
    assert [stage["state"] for stage in plan["stages"]] == ["to learn", "to learn"]
    assert plan["weights"][0] == {"part": "base", "place": str(root / "llava"), "problem": None}
    trains = plan["stages"][1]["trains"]
    assert "Q-Former and projector of its own" in trains


def test_a_run_that_is_cut_off_goes_on(root, recipe, run, tmp_path):
    shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "paths" / "heat")
    (tmp_path / "cut" / "scores.json").unlink()
    assert evolve(root, recipe, tmp_path / "cut") == 0
    assert hashes(tmp_path / "cut") == hashes(run)


def test_it_is_extended_by_one_more_sense(root, run, tmp_path, capsys):
    sense = {"name": "more", "modalities": {"motion": MOTION}, "curriculum": ["motion"]}
    (root / "more.yaml").write_text(json.dumps(sense), encoding="utf-8")
    words = root / "more.yaml", "--out", tmp_path / "longer", "--json"
    assert command("extend", run, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert {v["path"]: v["holds"] for v in told["verified"]} == {
        "base": True,
        "sound": True,
        "heat": True,
    }
    about = describe_path(tmp_path / "longer" / "paths" / "motion")
    assert about["predecessors"].keys() == {"sound", "heat"}
    assert hashes(run).items() <= hashes(tmp_path / "longer").items()


@pytest.fixture
def moved(root, run, tmp_path):
    """A copy of the run whose base is a copy of the base, to be changed."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(root / "llava", tmp_path / "llava")
    file = tmp_path / "run" / "recipe.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(tree | {"base": str(tmp_path / "llava")}), encoding="utf-8")
    return tmp_path / "run"


def test_a_base_may_lie_elsewhere(root, recipe, run, moved, capsys):
    assert command("verify", moved, "--json") == 0
    verdicts = json.loads(capsys.readouterr().out)
    assert [(v["path"], v["identical"]) for v in verdicts] == [
        ("base", True),
        ("sound", True),
        ("heat", True),
    ]
    assert evolve(root, recipe, moved) == 0
    assert hashes(moved) == hashes(run)


def test_a_base_that_was_changed_a_little_fails_its_proof(moved, capsys):
    """A fingerprint knows the first values of a tensor."""
    change_base(moved, -1)
    assert command("verify", moved) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAIL base: differs by")
    assert all(line.startswith("FAIL") for line in lines)


def test_paths_of_another_base_are_refused(moved, capsys):
    change_base(moved, 0)
    assert command("verify", moved) == 2
    assert "path 'sound' must" in capsys.readouterr().err


def test_paths_are_refused_with_another_chat_template(moved, capsys):
    file = moved.parent / "llava" / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert command("ask", moved, "What?") == 2
    assert "path 'sound' must" in capsys.readouterr().err


def change_base(run, row):
    """Change a row of the output embeddings of the run's base."""
    file = run.parent / "llava" / "model.safetensors"
    tensors = load_file(file)
    [name] = [name for name in tensors if name.endswith("lm_head.weight")]
    tensors[name][row] += 1
    save_file(tensors, file, {"format": "pt"})


def test_it_is_asked_about_everything(root, run, capsys):
    assistant = load(run)
    pic = {"type": "image", "path": str(root / "picture-0.png")}
    sound = {"type": "sound", "path": str(root / "sound-test-0.npy")}
    asked = {
        "text": [TEXT],
        "picture": [pic, TEXT],
        "sense": [sound, TEXT],
        "both": [pic, sound, TEXT],
        "turns": [
            SYSTEM,
            {"role": "user", "content": [pic, TEXT]},
            {"role": "assistant", "content": "a cat"},
            {"role": "user", "content": [sound, TEXT]},
        ],
    }
    answers = dict(zip(asked, assistant.ask(list(asked.values()), max_tokens=4), strict=True))
    alone = {name: assistant.ask([content], max_tokens=4)[0] for name, content in asked.items()}
    assert answers == alone
    base = load_alone(str(root / "llava"))
    for name in ("text", "picture"):
        assert base.ask([asked[name]], max_tokens=4) == [answers[name]]
    words = ("--image", pic["path"], "--sound", sound["path"], TEXT["text"], "--max-tokens", 4)
    capsys.readouterr()
    assert command("ask", run, *words) == 0
    assert capsys.readouterr().out == f"{answers['both']}\n"
    assert command("ask", run, *words, "--blind") == 0
    assert capsys.readouterr().out.strip() != answers["both"]
    assert command("ask", "--base", root / "llava", "--image", pic["path"], TEXT["text"]) == 0


def test_gates_inside_the_language_model_are_inspected(run, capsys):
    assert command("inspect", run, "--json") == 0
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert paths["sound"]["gate_usage"] == {}
    usage = paths["heat"]["gate_usage"]
    assert usage.keys() == {"sound", "heat"}
    assert sum(usage.values()) == pytest.approx(1, abs=1e-3)


def test_pictures_of_the_base_are_scored(root, run, capsys):
    words = root / "image.jsonl", "--metric", "ranking", "--json"
    assert command("evaluate", run, *words) == 0
    [score] = json.loads(capsys.readouterr().out)
    assert score["num_samples"] == 4


def test_its_cost_is_known_before(root, recipe, run, capsys):
    (root / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    assert command("estimate", root / "recipe.yaml", "--json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    for stage in stages:
        about = describe_path(run / "paths" / stage["modality"])
        assert stage["trained"]["total"] == about["trained_parameters"]


def refusal(capsys, *words):
    """The one line that a command is refused with."""
    assert command(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_prompt_with_a_picture_may_be_too_long(root, run, capsys):
    words = "ask", run, "--image", root / "picture-0.png", "a" * 1020
    assert "must have at most 1,024 tokens, the context of the" in refusal(capsys, *words)


def test_another_scope_is_another_run(root, recipe, run, capsys):
    recipe["method"] = METHOD | {"scope": "medium"}
    (root / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    told = refusal(capsys, "evolve", root / "recipe.yaml", "--out", run, "--json")
    assert "got another value of method.scope" in told


def test_media_that_neither_paths_nor_the_base_read_are_refused(root, run, capsys):
    told = refusal(capsys, "ask", run, "--video", root / "picture-0.png", "What?")
    assert "a medium must be one of ['heat', 'image', 'sound'], got 'video'" in told
    told = refusal(capsys, "ask", run, "--image", root / "sound-test-0.npy", "What?")
    assert "sound-test-0.npy must be" in told
    told = refusal(capsys, "ask", run, "--path", "image", "--image", root / "picture-0.png", "W?")
    assert "path must be one of ['heat', 'sound'], got 'image'" in told


def test_a_conversation_must_end_with_a_question(root, run):
    said = {"role": "assistant", "content": "A cat."}
    picture = {"role": "user", "content": [{"type": "image", "path": "picture-0.png"}, TEXT]}
    with pytest.raises(RequestError, match="the last turn must be of the user"):
        load(run).ask([[picture, said]])


def test_a_model_may_say_the_token_of_a_picture(root, tmp_path):
    """Its answer is that token alone, which is no text; the next tokens are read as words."""
    shutil.copytree(root / "llava", tmp_path / "llava")
    base = load_alone(str(tmp_path / "llava"))
    token = base.model.llm.config.image_token_id
    with torch.no_grad():
        head = base.model.llm.get_output_embeddings().weight
        head.zero_()
        head[token] = 1
        head[base.model.base.tokenizer.pad_token_id] = -1
    pic = {"type": "image", "path": str(root / "picture-0.png")}
    for content in ([pic, TEXT], [TEXT]):
        for beams in (1, 2):
            [answer] = base.ask([content], max_tokens=3, beams=beams)
            assert "image" not in answer


def test_names_of_special_tokens_are_words_in_questions_and_answers(run):
    assistant = load(run)
    model = assistant.model
    image = model.base.tokenizer.convert_tokens_to_ids("<image>")
    assert image not in model.answer_ids("an <image> of it")
    assert assistant.ask([[{"type": "text", "text": "an <image>?"}]], max_tokens=2)


def test_a_path_of_the_name_of_a_kind_of_media_takes_its_place(root, recipe, tmp_path, capsys):
    """The base no longer reads them by itself: a part type is one thing in a run."""
    tree = recipe["modalities"] | {"image": HEAT | {"train": {"qa": {"manifest": "image.jsonl"}}}}
    tree["image"]["test"] = {}
    recipe |= {"modalities": tree, "curriculum": ["image", "sound"]}
    del recipe["modalities"]["heat"]
    assert evolve(root, recipe, tmp_path / "run") == 0
    assistant = load(tmp_path / "run")
    assert isinstance(assistant.readers["image"], FeatureReader)
    pic = {"type": "image", "path": str(root / "picture-0.png")}
    assert isinstance(assistant._medium(Part(**pic), None), Medium)
    assert command("verify", tmp_path / "run") == 0
    assert "ok   base" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "paths")
    told = refusal(capsys, "ask", tmp_path / "run", "--image", pic["path"], "What?")
    assert "a medium must be one of" in told


def test_a_set_of_pictures_of_the_base_alone_teaches_no_sense(root, recipe, tmp_path, capsys):
    recipe["modalities"]["heat"] = HEAT | {"train": {"qa": {"manifest": "image.jsonl"}}}
    recipe["curriculum"] = ["heat"]
    assert evolve(root, recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "modalities.heat.train must hold media of 'heat', got ['image'] in" in said
