from dataclasses import replace

import pytest
import torch

from pathweave.evaluate.verify import record_proof, verify_path
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


def test_what_is_recorded(model):
    tensors, about = record_proof(model, [["Well,", *PROMPTS[0]], PROMPTS[1]])
    assert set(tensors) == {"features_0", "features_1", "tokens_0", "tokens_1"}
    assert tensors["features_0"].dtype == torch.float16
    assert tensors["tokens_0"].shape == (6, 32)
    assert about["texts"] == ["Well, What is it?", "How loud?"]
    assert len(about["logits"]) == len(about["answers"]) == 2
    assert verify_path(model, "sound", tensors, about).identical
