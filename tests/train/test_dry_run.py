"""What a run would do and what is missing for it, told without loading or fetching anything."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers

from pathweave.bases import hub
from pathweave.data.manifest import Manifest, write_manifest
from pathweave.estimate.encoders import Features
from pathweave.recipe.reading import load_recipe, parse_recipe
from pathweave.runs.run_directory import RunDirectory
from pathweave.train import dry_run
from pathweave.train.dry_run import make_plan
from pathweave.train.dry_run_report import lines
from pathweave.train.presence import check_weights
from tests.published import write_published
from tests.tiny import write_tiny_recipe
from tests.whole_runs import command

NO_DATA = (
    "modalities.sound.train must name a data set to learn from, got none; add one, or take 'sound' "
    "out of curriculum"
)
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """No cache, no hub, and no language model may be built."""
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "is_reachable", lambda: pytest.fail("asked the hub"))
    for loader in ("from_pretrained", "from_config"):
        refuse = classmethod(lambda *_, **__: pytest.fail("built a language model"))
        monkeypatch.setattr(transformers.AutoModelForCausalLM, loader, refuse)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The recipe of two sensors; whoever changes its data copies it."""
    return write_tiny_recipe(tmp_path_factory.mktemp("tiny"), "sight", "sound")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The recipe of three sensors."""
    return write_tiny_recipe(tmp_path_factory.mktemp("three"), "sight", "sound", "tilt")


@pytest.fixture
def copied(tiny, tmp_path):
    return shutil.copytree(tiny.parent, tmp_path / "copy") / "recipe.yaml"


@pytest.fixture(scope="module")
def instructblip(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("models") / "blip", "instructblip-opt").directory


def plan_of(recipe, tmp_path, **overrides):
    return make_plan(load_recipe(recipe, overrides), tmp_path / "run")


def problems(recipe, tmp_path, **overrides):
    return "\n".join(plan_of(recipe, tmp_path, **overrides).problems)


def changed(recipe, **fields):
    """The recipe with other modalities' fields, by dotted name."""
    return load_recipe(recipe, {f"modalities.{name}": value for name, value in fields.items()})


def test_a_run_that_lacks_nothing(tiny, tmp_path):
    plan = plan_of(tiny, tmp_path, limit=10)
    assert plan.problems == ()
    first, second = plan.stages
    assert first.trains == ("queries", "input norm and projection", "Q-Former", "projector")
    assert first.predecessors == second.predecessors == ()
    assert (second.steps, second.batch_size) == (6, 4)
    assert second.trains[2:] == ("adapters of rank 2",)
    [train], [test] = second.train, second.test
    assert (train.data.samples, train.share, train.rounds) == (10, 1.0, 2.4)
    assert train.data.licences == ("CC0-1.0",)
    assert (test.data.samples, test.scored, test.metric) == (10, 10, "exact_match")
    assert plan.answers == 10 * 2 + 10
    assert [found.problem for found in plan.weights] == [None, None]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "draw", "expected"), [(None, 6, 6), (4, 6, 4), (10, 6, 6)])
def test_a_draw_is_counted(tiny, tmp_path, limit, draw, expected):
    plan = plan_of(tiny, tmp_path, **{"limit": limit, "modalities.sound.train.qa.draw": draw})
    [train] = plan.stages[1].train
    assert (train.data.samples, train.rounds) == (expected, 24 / expected)


def test_later_stages_build_on_earlier_ones_with_adapters(three, tmp_path):
    recipe = load_recipe(three)
    third = make_plan(recipe, tmp_path / "run").stages[2]
    assert third.predecessors == ("sound",)
    assert third.trains[3:] == ("in-adapters for sound", "gates")
    method = recipe.method.model_copy(update={"gate": None, "in_adapter": None})
    plain = make_plan(recipe.model_copy(update={"method": method}), tmp_path / "run").stages[2]
    assert plain.trains[3:] == ()


def test_answers_over_all_stages(tiny, tmp_path):
    each = {"evaluation.subset": 5}
    assert plan_of(tiny, tmp_path, **each).answers == (5 * 2 + 5) + (19 + 19)
    once = {**each, "evaluation.whole_at_end": False}
    assert plan_of(tiny, tmp_path, **once).answers == 5 * 2 + 5


def test_all_problems_are_told_at_once(copied, tmp_path):
    (copied.parent / "sound-train.jsonl").unlink()
    (copied.parent / "sight-train-0.npy").write_bytes(b"hello")
    shutil.rmtree(copied.parent / "base")
    said = problems(copied, tmp_path, **{"modalities.sound.decoder": {"kind": "array", "widht": 1}})
    for part in (
        "base: base must be one of ['mini'], got 'base', or a directory or the hub id",
        "decoder 'array': field widht must be one of ['width'], got 'widht'",
        "sound-train.jsonl must exist, got no such file; beside it are",
        "sight-train.jsonl: the first medium: sight-train-0.npy must be a whole .npy or safete",
    ):
        assert part in said
    assert said.count("\n") == 3


def answer(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda row: row | {"messages": row["messages"][:1]}, "must give an answer to learn with"),
        (
            lambda row: json.loads(json.dumps(row).replace('"type": "sound"', '"type": "scent"')),
            "a part type must be one of ['sight', 'sound', 'text'], got 'scent'",
        ),
        (
            lambda row: {**row, "messages": [*row["messages"][:1], answer("long " * 500)]},
            "got 1 of 24; mend or remove them. The first: sound-train-0: a prompt and its answer "
            "must have at most 2,048 tokens, the context of the language model, got 12 and 2,501",
        ),
        (lambda row: {"id": row["id"]}, "must have at most 1.0% broken rows, got 1 of 24; mend"),
        (
            lambda row: json.loads(json.dumps(row).replace("How is", "How \\ud83d is")),
            "text must be UTF-8, got half a character in",
        ),
        (
            lambda row: row | {"id": row["id"].replace("-0", "-1")},
            "ids must be unique, got 'sound-train-1' of",
        ),
    ],
)
def test_rows_that_cannot_be_learnt(copied, tmp_path, edit, message):
    file = copied.parent / "sound-train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text(
        "\n".join(json.dumps(row) for row in [edit(rows[0]), *rows[1:]]), encoding="utf-8"
    )
    assert message in problems(copied, tmp_path)


def test_a_run_in_a_directory_whose_path_is_not_utf_8(tiny, tmp_path):
    (said,) = plan_of(tiny, tmp_path / os.fsdecode(b"caf\xe9")).problems
    assert "must have a path in UTF-8" in said


def test_test_sets_need_what_they_are_scored_by(copied, tmp_path):
    file = copied.parent / "sound-test.jsonl"
    asked = [
        {**s.model_dump(exclude_none=True), "messages": s.model_dump()["messages"][:1]}
        for s in Manifest(file)
    ]
    write_manifest(file, asked)
    said = problems(copied, tmp_path)
    assert "sound-test.jsonl must give an answer or references with every sample, got 24" in said
    said = problems(copied, tmp_path, **{"modalities.sound.test.qa.metric": "ranking"})
    assert "sound-test.jsonl must give choices to rank with every sample, got 24 of 24" in said


def test_a_full_disk(tiny, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda _: usage)
    features = {"kind": "efficientnet-lite0", "size": 32, "directory": str(tiny.parent / "base")}
    recipe = load_recipe(tiny, {"modalities.sound.encoder": features})
    plan = make_plan(recipe, tmp_path / "run")
    assert plan.stages[1].medium_bytes == 1280 * 2
    assert plan.cache_bytes == plan.stages[1].feature_bytes == 1280 * 2 * 48
    assert "home/features must have 0.0 GB free for features" in plan.problems[-1]
    assert plan.stages[0].medium_bytes is None


def test_finished_stages(tiny, tmp_path):
    recipe = load_recipe(tiny)
    run = RunDirectory(tmp_path / "run")
    run.claim(recipe)
    (run.path("sight")).mkdir(parents=True)
    (run.path("sight") / "path.json").touch()
    plan = make_plan(recipe, run.root)
    assert plan.problems == ()
    assert [stage.state for stage in plan.stages] == ["learnt", "to learn"]
    assert plan.stages[0].trains == ()
    assert "  learnt already" in lines(plan)
    other = recipe.model_copy(update={"seed": 5})
    assert (
        "(later stages may be added at the end), got another value of seed"
        in (make_plan(other, run.root).problems[0])
    )


def test_a_directory_that_is_no_run(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{", encoding="utf-8")
    assert "run must be the directory of a run" in problems(tiny, tmp_path)


def test_the_small_recipe_lacks_its_weights_alone(tmp_path):
    plan = make_plan(load_recipe(RECIPES / "mcl_mini.yaml", quick=True), tmp_path / "run")
    names = "smollm2-135m-instruct", "minilm-l6-v2", "efficientnet-lite0", "aisfx"
    for found, name, said in zip(plan.weights, names, plan.problems, strict=True):
        assert said.startswith(f"{found.part}: weights {name} (")
        assert f"must be in the cache, got none; run pathweave fetch {name}, or let" in said
    sets = [each for stage in plan.stages for each in (*stage.train, *stage.test)]
    assert [each.data.samples for each in sets] == [96] * 20
    assert all(each.data.licences for each in sets)
    assert plan.stages[0].medium_bytes == 9 * 1280 * 2


def test_a_language_model_with_terms_must_have_been_fetched():
    recipe = load_recipe(RECIPES / "mcl_mini.yaml", {"llm": "gemma-3-270m"})
    [found] = [weights for weights in check_weights(recipe) if weights.part == "llm"]
    assert found.problem == (
        "weights gemma-3-270m (238 MB) must be in the cache, got none; run pathweave fetch "
        "gemma-3-270m"
    )


def test_the_papers_recipe_lists_everything_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "features_of", small_features)
    recipe = load_recipe(RECIPES / "pathweave_vicuna7b.yaml")
    plan = make_plan(recipe, tmp_path / "run")
    weights = [found.problem or "" for found in plan.weights]
    for said, wanted in zip(
        weights,
        (
            "Salesforce/instructblip-vicuna-7b must be a directory, or in the cache of the Hug",
            "Salesforce/instructblip-vicuna-7b must be a directory, or in the cache of the Hug",
            f"{RECIPES}/../weights/BEATs_iter3_plus_AS2M.pt must be or hold the weights of BEATs",
            f"{RECIPES}/../weights/pointbert_ULIP-2.pt must be or hold the weights of ULIP-2",
        ),
        strict=True,
    ):
        assert said.startswith(wanted)
    sets = [s for m in recipe.modalities.values() for s in (*m.train.values(), *m.test.values())]
    manifests = [p for p in plan.problems if p.startswith("manifest ")]
    assert len(manifests) == len({s.manifest for s in sets}) == 31
    assert len(plan.problems) == 4 + 31
    assert [stage.state for stage in plan.stages] == ["in the base", *["to learn"] * 4]
    assert plan.stages[4].predecessors == ("video", "audio", "depth")
    assert [stage.steps for stage in plan.stages[1:]] == [15_000, 65_000, 35_000, 65_000]
    assert {stage.medium_bytes for stage in plan.stages} == {2 * 3 * 4 * 2}


def small_features(*_):
    """In place of shapes of full-size encoders, which take a second each."""
    return Features(units=2, tokens=3, width=4)


def with_base(tiny, base, **fields):
    recipe = load_recipe(tiny)
    return recipe.model_copy(update={"base": str(base), **fields})


def weights_problem(recipe):
    return "\n".join(found.problem or "" for found in check_weights(recipe))


def test_a_published_base(tiny, instructblip):
    recipe = with_base(tiny, instructblip, llm=str(tiny.parent / "base" / "llm"))
    assert weights_problem(recipe).strip() == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), "must hold model.safetensors or"),
        (lambda d: shutil.rmtree(d / "qformer_tokenizer"), "must hold a tokenizer"),
        (
            lambda d: (d / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8"),
            "got 'llama'; name one of these as base, and any causal language model as llm",
        ),
    ],
)
def test_a_base_with_something_missing(tiny, instructblip, tmp_path, damage, message):
    directory = shutil.copytree(instructblip, tmp_path / "blip")
    damage(directory)
    assert message in weights_problem(with_base(tiny, directory))


def test_our_own_base_with_something_missing(tiny, tmp_path):
    base = shutil.copytree(tiny.parent / "base", tmp_path / "base")
    (base / "connector.safetensors").unlink()
    assert "must hold connector.safetensors, got none" in weights_problem(with_base(tiny, base))
    (base / "llm" / "model.safetensors").unlink()
    (base / "connector.safetensors").touch()
    assert "llm must hold model.safetensors or" in weights_problem(with_base(tiny, base))


def test_a_copy_in_the_hubs_cache_counts(tiny, instructblip, tmp_path):
    repository = tmp_path / "hub" / "models--someone--blip"
    shutil.copytree(instructblip, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    assert weights_problem(with_base(tiny, "someone/blip")).strip() == ""
    assert "someone/other must be a directory, or in the cache" in weights_problem(
        with_base(tiny, "someone/other")
    )


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"kind": "telepathy"}, "encoder must be one of"),
        (
            {"kind": "precomputed", "width": "12"},
            "encoder 'precomputed': width: must be a valid integer",
        ),
        ({"kind": "precomputed", "widht": 12}, "got 'widht'; did you mean 'width'?"),
        ({"kind": "precomputed"}, "'precomputed': width: Field required"),
        ({"kind": "whisper", "directory": "nowhere"}, "nowhere must be a directory, or in the"),
        ({"kind": "transformers", "model": "some/model"}, "some/model must be a directory, or in"),
        ({"kind": "transformers", "model": "{blip}"}, "must hold the settings of a processor"),
        ({"kind": "eva-clip-g", "directory": "{blip}"}, None),
        ({"kind": "eva-clip-g", "directory": "{tmp}"}, "must be or hold the weights of EVA-CLIP"),
        ({"kind": "eva-clip-g", "directory": "a/eva.pth"}, "a/eva.pth must be or hold the weights"),
        ({"kind": "eva-clip-g"}, "must have the option 'directory', got none"),
    ],
)
def test_encoders(tiny, instructblip, tmp_path, encoder, message):
    copy = shutil.copytree(instructblip, tmp_path / "blip")
    for file in copy.glob("*processor*.json"):
        file.unlink()
    places = {"{blip}": str(copy), "{tmp}": str(tmp_path)}
    options = {name: places.get(value, value) for name, value in encoder.items()}
    recipe = parse_recipe(load_recipe(tiny, {"modalities.sight.encoder": options}).model_dump())
    said = check_weights(recipe)[1].problem
    assert said is None if message is None else message in said


def test_the_command(tiny, tmp_path, capsys):
    words = ("evolve", tiny, "--out", tmp_path / "run", "--dry-run")
    assert command(*words) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: what a run into ")
    assert "Stage 2: sound\n  trains queries, input norm and projection, adapters of rank 2" in out
    assert "learns qa: 24 samples, 100.0% of the samples drawn, 1 rounds; licences: CC0-1.0" in out
    assert "scores qa: 24 samples, 24 of them after each stage, by exact_match" in out
    assert out.endswith("Nothing is missing.\n")
    assert not (tmp_path / "run").exists()
    assert command(*words, "--set", "modalities.sound.train={}", "--json") == 1
    plan = json.loads(capsys.readouterr().out)
    assert plan["problems"] == [NO_DATA]
    assert plan["stages"][0]["train"][0]["data"]["samples"] == 24
    assert command(*words, "--set", "modalities.sound.train={}") == 1
    assert "Problems (1)\n  1. modalities.sound.train must" in capsys.readouterr().out
    assert command(*words, "--set", "sed=1") == 2
