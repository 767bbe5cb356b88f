from dataclasses import replace

import pytest
import torch

from pathweave.evaluate.verify import Verdict, record_proof, verify_path
from pathweave.model.generate import generate
from tests.tiny import chain, medium, randomise, tiny_model

SPECS = chain("sight", "sound", "range", "shape")
PROMPTS = [
    [medium("sound", units=2, seed=1), "What is it?"],
    [medium("sound", tokens=3, seed=2), "How loud?"],
]


@pytest.fixture
def model():
    return tiny_model(*SPECS[:2])


def test_the_proof_holds_after_later_paths(model):
    tensors, about = record_proof(model, PROMPTS)
    for spec in SPECS[2:]:
        randomise(model.paths.expand(spec))
    verdict = verify_path(model, "sound", tensors, about)
    assert verdict.path == "sound"
    assert verdict.identical
    assert verdict.holds
    assert verdict.same_machine
    assert verdict.answers_equal
    assert verdict.max_difference == 0.0


def test_the_proof_fails_when_one_weight_changes(model):
    tensors, about = record_proof(model, PROMPTS)
    weight = model.paths["sound"].experts_at("layer_0/cross_attention/value").adapter.up.weight
    weight.data[0, 0] += 1e-3
    verdict = verify_path(model, "sound", tensors, about)
    assert not verdict.identical
    assert not verdict.holds
    assert 0 < verdict.max_difference < 1e-2


def test_the_proof_fails_when_the_language_model_changes(model):
    tensors, about = record_proof(model, PROMPTS)
    model.llm.lm_head.weight.data[5, 5] += 1e-3
    verdict = verify_path(model, "sound", tensors, about)
    assert verdict.max_difference == 0.0
    assert not verdict.identical
    assert not verdict.holds


def test_on_another_machine_rounding_is_tolerated_and_no_more(model):
    tensors, about = record_proof(model, PROMPTS)
    about = {**about, "machine": {**about["machine"], "processor": "another"}}
    weight = model.paths["sound"].experts_at("projector").adapter.up.weight
    weight.data[0, 0] += 1e-6
    verdict = verify_path(model, "sound", tensors, about)
    assert not verdict.same_machine
    assert not verdict.identical
    assert verdict.holds
    assert not replace(verdict, answers_equal=False).holds
    weight.data[0] += 10.0
    assert not verify_path(model, "sound", tensors, about).holds


@pytest.mark.parametrize(
    ("difference", "holds"), [(0.0, True), (0.05, True), (0.0501, False), (0.5, False)]
)
def test_on_another_machine_a_twentieth_of_the_largest_component_is_tolerated(difference, holds):
    verdict = Verdict("sound", False, difference, answers_equal=True, same_machine=False)
    assert verdict.holds == holds
    assert not replace(verdict, same_machine=True).holds


def test_the_answer_of_a_proof_has_eight_tokens_at_most(model):
    _, about = record_proof(model, PROMPTS)
    longer = generate(model, PROMPTS, 9)
    assert about["answers"] == generate(model, PROMPTS, 8)
    assert about["answers"] != longer


def test_what_is_recorded(model):
    tensors, about = record_proof(model, [["Well,", *PROMPTS[0]], PROMPTS[1]])
    assert set(tensors) == {"features_0", "features_1", "tokens_0", "tokens_1"}
    assert tensors["features_0"].dtype == torch.float16
    assert tensors["tokens_0"].shape == (6, 32)
    assert about["texts"] == ["Well, What is it?", "How loud?"]
    assert len(about["logits"]) == len(about["answers"]) == 2
    assert verify_path(model, "sound", tensors, about).identical
