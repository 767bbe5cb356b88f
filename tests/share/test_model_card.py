"""The card says what the pack holds: scores beside what they are read against, licences, words."""

import re

import pytest
import yaml

from pathweave.evaluate.results import DatasetInfo, Results
from pathweave.evaluate.scores import ScoreMatrix
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.model_card import model_card
from pathweave.share.pack import Pack


@pytest.fixture
def contents(packs):
    return Pack(packs / "tilt").contents


def results():
    matrix = ScoreMatrix(["sight", "sound", "tilt"])
    scores = {(0, "sight"): 90, (1, "sight"): 80, (1, "sound"): 60}
    scores |= {(2, "sight"): 80, (2, "sound"): 55, (2, "tilt"): 70}
    for (stage, name), score in scores.items():
        matrix.add(stage, name, "qa", float(score))
    about = {"metric": "exact_match", "probe": 75.25, "text_only": 12.5, "majority": 50.0}
    sets = {n: [DatasetInfo(name="qa", whole=68.5, **about)] for n in matrix.curriculum}
    return Results(
        recipe="x", method="pathweave", curriculum=list(matrix.curriculum), datasets=sets,
        scores=matrix.as_dict(), stages=[],
    )  # fmt: skip


def card(run, contents, repository="me/tilt", licence="other"):
    return model_card(RunDirectory(run), contents, repository, licence)


def test_scores_stand_beside_probe_and_text_only(finished_run, contents):
    text = card(finished_run, contents.model_copy(update={"results": results()}))
    assert "| path | test set | score | whole set | linear probe | text only | majority |" in text
    assert "| tilt | qa (%) | 70.0 | 68.5 | 75.2 | 12.5 | 50.0 |" in text
    assert "| sound | qa (%) | 55.0 |" in text  # at the end, not when it was learnt
    assert "| sight |" not in text
    assert "sound: transfer T 60.0, forgetting F 10.0 (points" in text
    assert "tilt: transfer T 70.0, forgetting F 7.5 (points" in text  # (10 + 5) / 2


def test_a_path_without_results_has_a_card_without_scores(finished_run, contents):
    text = card(finished_run, contents.model_copy(update={"results": None}))
    assert "Scores" not in text
    assert "## Use" in text


@pytest.mark.parametrize(
    ("base", "llm", "models"),
    [
        ("Salesforce/instructblip-vicuna-7b", None, ["Salesforce/instructblip-vicuna-7b"]),
        ("mini", None, ["HuggingFaceTB/SmolLM2-135M-Instruct"]),
        ("owner/vlm", "owner/llm", ["owner/vlm", "owner/llm"]),
        ("a-directory", None, None),
    ],
)
def test_the_head_names_base_and_licence(base, llm, models, finished_run, contents):
    recipe = contents.recipe.model_copy(update={"base": base, "llm": llm})
    text = card(finished_run, contents.model_copy(update={"recipe": recipe}), licence="apache-2.0")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "pathweave"
    assert head["pipeline_tag"] == "any-to-any"
    assert head["license"] == "apache-2.0"
    assert head.get("base_model") == models
    assert f"the base `{base}`" in text


def test_licences_and_predecessors_are_listed(finished_run, contents, packs):
    text = card(finished_run, contents)
    assert "| tiny | Apache-2.0 |" in text
    for name in ("sound", "tilt"):
        assert f"| {name}: encoder precomputed | not stated |" in text
        assert f"| {name}: data | CC0-1.0 |" in text
    assert re.search(r"- `sound` `[0-9a-f]{12}`, in the file", text)
    alone = card(finished_run, Pack(packs / "alone").contents)
    assert re.search(r"- `sound` `[0-9a-f]{12}`, not in it", alone)
    assert "pathweave unpack" in text
    assert "pathweave unpack" not in alone
    assert "The base alone." in card(finished_run, Pack(packs / "sound").contents)


def test_the_words_to_type_are_commands(finished_run, contents):
    text = card(finished_run, contents)
    words = re.findall(r"^pathweave (\w+)", text, re.MULTILINE)
    assert words == ["pull", "add", "unpack", "ask"]
    assert 'pathweave ask tilt --tilt FILE "What is this?"' in text
    joint = contents.recipe.modalities["tilt"].model_copy(update={"reads": ("sound", "sight")})
    both = {
        **contents.recipe.modalities,
        "tilt": joint,
        "sight": contents.recipe.modalities["sound"],
    }
    recipe = contents.recipe.model_copy(update={"modalities": both})
    text = card(finished_run, contents.model_copy(update={"recipe": recipe}))
    assert "ask tilt --path tilt --sound FILE --sight FILE" in text
