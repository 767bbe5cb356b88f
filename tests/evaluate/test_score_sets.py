import json

import pytest
import torch

from pathweave.data.cache import FeatureCache
from pathweave.data.examples import Examples
from pathweave.data.readers import Readers
from pathweave.errors import ManifestError
from pathweave.evaluate.score_sets import (
    evaluate_set,
    majority_score,
    score_set,
    subset,
    text_only_score,
)
from pathweave.metrics.tokens import TOKENIZER
from pathweave.model.generate import generate
from pathweave.model.prompt import Medium
from pathweave.model.rank import log_likelihoods
from pathweave.recipe.reading import parse_recipe
from pathweave.recipe.schema import TestSet
from tests.tiny import WIDTH, chain, tiny_model, write_sensor_data

COUNT = 10


@pytest.fixture
def model():
    return tiny_model(*chain("sight", "sound"))


@pytest.fixture
def load(tmp_path):
    """Write a small set whose rows are edited by a function, and return its examples."""
    part = {
        "decoder": {"kind": "array"},
        "encoder": {"kind": "precomputed", "width": WIDTH},
    }
    recipe = parse_recipe({"name": "t", "modalities": {"sound": part}, "curriculum": ["sound"]})
    readers = Readers(recipe.modalities, FeatureCache(tmp_path / "features"))
    write_sensor_data(tmp_path, "sound", count=COUNT)

    def examples(edit=lambda i, row: row, split="test"):
        file = tmp_path / f"sound-{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text(
            "".join(json.dumps(edit(i, row)) + "\n" for i, row in enumerate(rows)), encoding="utf-8"
        )
        return Examples(file, readers)

    return examples


def scored_by(metric="exact_match", **fields):
    return TestSet(manifest="", metric=metric, max_tokens=4, **fields)


def test_a_subset_is_always_the_same():
    assert subset(5, None) == subset(5, 5) == subset(5, 9) == [0, 1, 2, 3, 4]
    some = subset(1000, 20)
    assert some == subset(1000, 20) == sorted(set(some))
    assert len(some) == 20
    assert max(some) > 500


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_come_by_index_whatever_the_batch(model, load, batch_size):
    def lengthen(i, row):
        row["messages"][0]["content"][1]["text"] = "How is it?" + " Please say." * (i * 7 % COUNT)
        return row

    examples = load(lengthen)
    done = []
    answers = evaluate_set(model.train(), examples, scored_by(), batch_size, advance=done.append)
    assert not model.training
    assert sum(done) == COUNT
    assert max(done) <= batch_size
    assert sorted(answers) == list(range(COUNT))
    for i in (0, 3, 9):
        assert answers[i] == generate(model, [examples.prompt(i)], 4)[0]


def test_only_chosen_samples_are_answered(model, load):
    examples = load()
    answers = evaluate_set(model, examples, scored_by(), 4, [7, 2])
    result = score_set(examples, scored_by(), answers)
    assert result.ids == ["sound-test-2", "sound-test-7"]
    assert result.predictions == [answers[2], answers[7]]
    assert [result.summary[f"num_{of}"] for of in ("samples", "usable", "total")] == [
        2,
        COUNT,
        COUNT,
    ]


def test_the_score_is_that_of_the_metric(load):
    def mend(i, row):
        return row | ({"references": ["low", "deep"]} if i == 0 else {})

    examples = load(mend)
    answers = {0: "deep", 1: "low", 2: "Low.", 3: "high"}
    result = score_set(examples, scored_by(), answers)
    assert result.score == 75.0
    assert result.summary == {
        "metric": "exact_match",
        "score": 75.0,
        "low": 25.0,
        "high": 100.0,
        "tokenizer": None,
        "num_samples": 4,
        "num_objects": 4,
        "num_usable": COUNT,
        "num_total": COUNT,
    }
    captions = {0: "deep", 1: "high", 2: "low", 3: "high"}
    result = score_set(examples, scored_by("cider_d"), captions)
    assert result.score > 0
    assert result.summary["tokenizer"] == TOKENIZER


def test_the_interval_is_over_the_objects_shown(load):
    examples = load(lambda i, row: row | ({"object": f"bell {i % 2}"} if i < 8 else {}))
    right = {i: examples.references(i)[0] for i in range(COUNT)}
    answers = {i: right[i] if i % 2 else "neither" for i in range(8)}
    result = score_set(examples, scored_by(), answers)
    assert (result.summary["num_samples"], result.summary["num_objects"]) == (8, 2)
    assert [result.summary[end] for end in ("low", "score", "high")] == [0.0, 50.0, 100.0]
    # Samples that name no object show one each.
    assert score_set(examples, scored_by(), right).summary["num_objects"] == 4


def test_one_object_gives_no_interval(load):
    examples = load(lambda i, row: row | {"object": "bell"})
    result = score_set(examples, scored_by(), {i: "low" for i in range(COUNT)})
    assert [result.summary[of] for of in ("low", "high", "num_objects")] == [None, None, 1]


def test_word_match_reads_the_choices(load):
    examples = load(lambda i, row: row | {"choices": ["low", "very low", "high"]})
    answers = {i: f"it is {examples.references(i)[0]}" for i in range(COUNT)} | {0: "very low"}
    assert score_set(examples, scored_by("word_match"), answers).score == 90.0
    assert score_set(examples, scored_by("exact_match"), answers).score == 0.0


def test_ranking_chooses_the_likeliest(model, load):
    choices = ["low", "high", "neither"]
    examples = load(lambda i, row: row | {"choices": choices})
    answers = evaluate_set(model, examples, scored_by("ranking"), 4)
    for i in (0, 5):
        best = log_likelihoods(model, [examples.prompt(i)], choices)[0].argmax()
        assert answers[i] == choices[best]
    assert set(answers.values()) <= set(choices)


@pytest.mark.parametrize("given", [{}, {"choices": ["low"]}])
def test_ranking_needs_the_same_choices_with_every_sample(model, load, given):
    examples = load(lambda i, row: row | (given if i % 2 else {}))
    with pytest.raises(ManifestError, match=r"test\.jsonl must give the same choices .*add them"):
        evaluate_set(model, examples, scored_by("ranking"), COUNT)


def test_the_majority_is_of_the_training_set(load):
    train = load(lambda i, row: row | {"messages": [row["messages"][0], answer(i < 6)]}, "train")
    test = load(lambda i, row: row | {"messages": [row["messages"][0], answer(i < 3)]})
    assert majority_score(train, test, scored_by()) == pytest.approx(30.0)


def answer(low):
    return {"role": "assistant", "content": "low" if low else "high"}


def test_what_text_gives_away(model, load):
    """Two questions; a blind answer to one of them is the reference of some of its samples."""
    blind = Medium("sound", torch.zeros(1, 4, WIDTH))
    questions = ["How is it?", "How loud is it?"]
    expected = generate(model, [[blind, questions[1]]], 4)[0]

    def ask(i, row):
        row["messages"][0]["content"][1]["text"] = questions[i % 2]
        return row | {"references": [expected if i in (1, 3, 5) else "no such answer"]}

    score = text_only_score(model, load(ask), scored_by(), range(COUNT))
    assert score == pytest.approx(30.0)


def test_what_text_gives_away_of_a_ranking_is_ranked(model, load):
    choices = ["low", "high"]
    examples = load(lambda i, row: row | {"choices": choices})
    blind = Medium("sound", torch.zeros(1, 4, WIDTH))
    best = choices[log_likelihoods(model, [[blind, "How is it?"]], choices)[0].argmax()]
    share = 100 * sum(examples.references(i) == [best] for i in range(COUNT)) / COUNT
    assert 0 < share < 100
    found = text_only_score(model, examples, scored_by("ranking"), range(COUNT))
    assert found == pytest.approx(share)


def test_a_test_set_chooses_how_is_decoded(model, load, monkeypatch):
    asked = []

    def note(model, prompts, **options):
        asked.append(options)
        return ["low"] * len(prompts)

    monkeypatch.setattr("pathweave.evaluate.score_sets.generate", note)
    options = {"beams": 5, "min_tokens": 1, "length_penalty": -1.0, "repetition_penalty": 1.5}
    examples = load()
    evaluate_set(model, examples, scored_by(**options), COUNT)
    text_only_score(model, examples, scored_by(**options), [0])
    assert asked == 2 * [{"max_tokens": 4, **options}]
