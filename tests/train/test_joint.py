"""A path for samples that show several modalities: learnt last, asked by name, others untouched."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pathweave.data.examples import Examples
from pathweave.evaluate.results import Results
from pathweave.model.prompt import token_ids
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.reading import load_recipe
from pathweave.runs.assistant import load
from pathweave.runs.loading import load_run, make_readers
from pathweave.train.evolve import show
from tests.joint import QUESTION, with_joint, write_joint_data
from tests.whole_runs import SENSORS, command, events, hashes

FILES = ("path.safetensors", "proof.safetensors", "path.json")


@pytest.fixture(scope="module")
def recipe(recipe_file):
    """The recipe of three sensors, with samples beside it that show two of them."""
    write_joint_data(recipe_file.parent, "sound", "tilt")
    return recipe_file


@pytest.fixture(scope="module")
def runs(recipe, finished_run, shared_home, tmp_path_factory):
    """A finished run of the sensors, and a copy to which the joint stage was added."""
    after = shutil.copytree(finished_run, tmp_path_factory.mktemp("added") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        added = with_joint(recipe, "sound", "tilt")
        assert command("evolve", added, "--out", after, "--json") == 0
    return finished_run, after


pytestmark = pytest.mark.usefixtures("home")


def test_the_stage_is_added_and_every_earlier_path_stays_as_it_is(runs, capsys):
    before, after = runs
    for name in SENSORS:
        for file in FILES:
            place = f"paths/{name}/{file}"
            assert (after / place).read_bytes() == (before / place).read_bytes()
    assert hashes(after).items() > hashes(before).items()
    assert Results.load(after / "results.json").curriculum == [*SENSORS, "both"]
    capsys.readouterr()
    assert command("verify", after, "--json") == 0
    verdicts = json.loads(capsys.readouterr().out)
    assert [v["path"] for v in verdicts] == ["base", *SENSORS, "both"]
    assert all(v["identical"] for v in verdicts)
    matrix = Results.load(after / "results.json").matrix
    assert all(matrix.forgetting(3, name) == 0.0 for name in SENSORS)


def test_the_path_builds_on_all_earlier_ones_and_says_what_it_reads(runs, capsys):
    _, after = runs
    about = json.loads((after / "paths" / "both" / "path.json").read_text(encoding="utf-8"))
    assert list(about["predecessors"]) == ["sound", "tilt"]
    assert about["modality"] == {
        "reads": {
            name: {
                "decoder": {"kind": "array"},
                "encoder": {"kind": "precomputed", "width": 12},
                "cue": f"{name}:",
            }
            for name in ("sound", "tilt")
        }
    }
    stages = {e["stage"]: e for e in events(after, "stage")}
    assert stages["both"]["trained"] == sum(about["parameters"].values())
    capsys.readouterr()
    assert command("inspect", after) == 0
    assert "encoder: precomputed (not stated)" in " ".join(capsys.readouterr().out.split())


def joint_prompts(after, path):
    model, recipe = load_run(after)
    file = recipe.modalities["both"].test["qa"].manifest
    examples = Examples(Path(file), make_readers(recipe), path)
    examples.drop_bad_samples(0.0)
    return model, examples, [examples.prompt(i) for i in range(len(examples))]


def test_one_prompt_holds_both_media_with_the_cue_of_each(runs):
    model, _, prompts = joint_prompts(runs[1], "both")
    first, second, text = prompts[0]
    assert [(m.path, m.modality) for m in (first, second)] == [("both", "sound"), ("both", "tilt")]
    assert text == QUESTION
    whole = model.embed_prompts([prompts[0]])[0]
    soft = model.soft_tokens([first, second], [text, text])
    at = 0
    for cue, tokens in zip(("sound:", "tilt:"), soft, strict=True):
        words = torch.tensor(token_ids(model.base.tokenizer, cue))
        said = model.llm.get_input_embeddings()(words)
        assert torch.equal(whole[at : at + len(said)], said)
        at += len(said)
        torch.testing.assert_close(whole[at : at + len(tokens)], tokens, atol=1e-5, rtol=1e-5)
        at += len(tokens)


def test_the_answer_follows_from_both_media(runs):
    """Whatever medium is exchanged, the likelihoods of the answers change."""
    model, _, prompts = joint_prompts(runs[1], "both")
    with torch.no_grad():
        low_low, low_high, high_low, high_high = log_likelihoods(model, prompts[:4], ["yes", "no"])
    for one, other in ((low_low, low_high), (low_low, high_low), (high_high, high_low)):
        assert not torch.allclose(one, other)


def test_what_is_learnt_is_in_the_joint_path_alone(runs):
    losses = [e["loss"] for e in events(runs[1], "step") if e["stage"] == "both"]
    assert losses[-1] < losses[0]


def test_ask_reads_media_with_the_joint_path(runs, recipe, capsys):
    media = ["--sound", recipe.parent / "sound-test-0.npy"]
    media += ["--tilt", recipe.parent / "tilt-test-1.npy"]
    words = (*media, QUESTION, "--max-tokens", 3, "--json")
    assert command("ask", runs[1], "--path", "both", *words) == 0
    asked = json.loads(capsys.readouterr().out)
    assistant = load(runs[1])
    assert asked["answer"] == assistant.ask([asked["prompt"]], max_tokens=3, path="both")[0]
    media = [part for part in parts(asked["prompt"]) if not part.is_text]
    own, joint = ([assistant._medium(m, path) for m in media] for path in (None, "both"))
    assert [(m.path, m.modality) for m in own] == [("sound", None), ("tilt", None)]
    assert [(m.path, m.modality) for m in joint] == [("both", "sound"), ("both", "tilt")]


def parts(content):
    from pathweave.data.messages import Part

    return [Part(**part) for part in content]


def test_ask_refuses_what_the_joint_path_does_not_read(runs, recipe, capsys):
    sight = ("--sight", recipe.parent / "sight-test-0.npy", QUESTION)
    assert command("ask", runs[1], "--path", "both", *sight) == 2
    said = "a medium for path 'both' must be one of ['sound', 'tilt'], got 'sight'"
    assert said in capsys.readouterr().err
    assert command("ask", runs[1], "--path", "botch", *sight) == 2
    assert "path must be one of" in capsys.readouterr().err
    assert command("ask", runs[1], "--both", recipe.parent / "sight-test-0.npy", QUESTION) == 2
    assert "got 'both'" in capsys.readouterr().err


def test_paths_that_were_trained_alone_are_evaluated_on_joint_samples(runs, recipe, capsys):
    manifest = recipe.parent / "both-test.jsonl"
    for words in (("--metric", "exact_match", "--max-tokens", 1), ("--metric", "ranking")):
        assert command("evaluate", runs[0], manifest, *words, "--json") == 0
        [score] = json.loads(capsys.readouterr().out)
        assert (score["num_samples"], score["metric"]) == (24, words[1])


def test_any_manifest_is_read_with_the_joint_path(runs, recipe, capsys):
    words = (recipe.parent / "both-test.jsonl", "--metric", "ranking", "--json")
    assert command("evaluate", runs[1], *words, "--path", "both") == 0
    [joint] = json.loads(capsys.readouterr().out)
    [last] = [
        e for e in events(runs[1], "score") if (e["after"], e["modality"]) == ("both", "both")
    ]
    assert joint["score"] == last["score"]


def test_the_recipes_own_sets_are_read_with_the_joint_path(runs, capsys):
    assert command("evaluate", runs[1], "--json", "--limit", 4) == 0
    assert [s["set"] for s in json.loads(capsys.readouterr().out)][-1] == "both/qa"
    _, recipe = load_run(runs[1])
    assert {data.path for data in recipe.modalities["both"].test.values()} == {"both"}
    _, _, prompts = joint_prompts(runs[1], None)
    assert [m.path for m in prompts[0][:2]] == ["sound", "tilt"]


def test_a_report_ends_with_a_question_to_the_joint_path(runs, capsys):
    show(Results.load(runs[1] / "results.json"), runs[1])
    asked = f"pathweave ask {runs[1]} --path both --sound FILE --tilt FILE 'What is this?'"
    assert asked in capsys.readouterr().out


def test_a_limit_takes_samples_of_one_training_set(recipe):
    added = with_joint(recipe, "sound", "tilt")
    loaded = load_recipe(added, {"modalities.both.train.qa.limit": 8, "training.steps": 1})
    both = loaded.modalities["both"]
    assert loaded.limit_of(both.train["qa"]) == 8
    assert loaded.limit_of(both.test["qa"]) is None
    assert loaded.limit_of(loaded.modalities["sound"].train["qa"]) is None


def test_widths_that_differ_are_refused_before_anything_is_learnt(recipe, tmp_path, capsys):
    added = with_joint(recipe, "sound", "tilt")
    words = ("--set", "modalities.tilt.encoder.width=3", "--json")
    assert command("evolve", added, "--out", tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    said = (
        "modalities.both.reads must name modalities whose encoders give features of one width, "
        "got sound 12, tilt 3; leave some out"
    )
    assert said in error
    assert not (tmp_path / "run" / "paths").exists()
    assert command("evolve", added, "--out", tmp_path / "run", "--dry-run", *words) == 1
    plan = json.loads(capsys.readouterr().out)
    assert any(said in problem for problem in plan["problems"])
    assert command("estimate", added, *words[:2]) == 2
    assert said in capsys.readouterr().err


def test_the_cost_of_a_joint_stage_is_estimated(recipe, capsys):
    added = with_joint(recipe, "sound", "tilt")
    assert command("estimate", added, "--json") == 0
    stages = {s["modality"]: s for s in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["both"]["features"] == stages["tilt"]["features"]


def test_a_manifest_with_media_that_the_path_does_not_read(recipe, tmp_path, capsys):
    added = with_joint(recipe, "sound")
    assert command("evolve", added, "--out", tmp_path / "run", "--dry-run", "--json") == 1
    [train, test] = json.loads(capsys.readouterr().out)["problems"]
    assert "both-train.jsonl: a part type must be one of ['sound', 'text'], got 'tilt'" in train
    assert "both-test.jsonl" in test
