from dataclasses import replace

import pytest
import torch

from pathweave.evaluate.gates import gate_usage, gate_usage_by_site
from pathweave.model.prompt import Template
from tests.tiny import chain, medium, tiny_model

SPECS = chain("sight", "sound", "range", "shape", plain_sites=("projector",))


def usage(model, name):
    features = [medium(name, units=2, seed=s).features for s in range(2)]
    return gate_usage(model, name, features, ["What is it?", "How far?"])


@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", "top_k"])
def test_usage_sums_to_one(gate):
    model = tiny_model(*(replace(spec, gate=gate) for spec in SPECS))
    found = usage(model, "shape")
    assert list(found) == ["sound", "range", "shape"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert min(found.values()) > 0


def test_a_predecessor_that_lacks_hosts_counts_as_unused_there():
    narrow = replace(SPECS[2], sites=("layer_0/cross_attention/*",))
    found = usage(tiny_model(*SPECS[:2], narrow, SPECS[3]), "shape")
    assert set(found) == {"sound", "range", "shape"}
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert found["range"] < 0.3


def test_equal_gates_use_all_alike():
    model = tiny_model(*SPECS)
    for experts in model.paths["shape"].experts.values():
        if experts.gate is not None:
            experts.gate.weight.data.zero_()
    assert usage(model, "shape") == pytest.approx(dict.fromkeys(("sound", "range", "shape"), 1 / 3))


def test_a_path_without_gates_has_no_usage():
    model = tiny_model(*SPECS[:2])
    assert usage(model, "sight") == usage(model, "sound") == {}


def test_nothing_is_left_behind():
    model = tiny_model(*SPECS)
    before = model.soft_tokens([medium("shape")], ["What?"])[0]
    usage(model, "shape")
    assert torch.equal(before, model.soft_tokens([medium("shape")], ["What?"])[0])


def test_words_before_a_medium_are_on_no_path():
    """Inside the language model too: two inputs use what they use one by one, in the mean."""
    specs = chain("sight", "sound", "range", sites=("llm/*",))
    model = tiny_model(*specs)
    model.base.template = Template(text_first=True)
    media = [medium("range", units=2, seed=s).features for s in range(2)]
    both = gate_usage(model, "range", media, ["What is it?"] * 2)
    alone = [gate_usage(model, "range", [each], ["What is it?"]) for each in media]
    assert set(both) == {"sound", "range"}
    mean = {name: sum(found[name] for found in alone) / 2 for name in both}
    assert both == pytest.approx(mean, abs=1e-5)


def test_usage_by_site_is_that_of_each_gate():
    model = tiny_model(*SPECS)
    flat, *others = [s for s, mixed in model.paths.mixtures("shape").items() if mixed.gate]
    model.paths["shape"].experts[flat].gate.weight.data.zero_()
    features = [medium("shape", units=2, seed=s).features for s in range(2)]
    found = gate_usage_by_site(model, "shape", features, ["What is it?", "How far?"])
    assert list(found) == [flat, *others]
    assert found[flat] == pytest.approx(dict.fromkeys(("sound", "range", "shape"), 1 / 3))
    assert all(found[site] != pytest.approx(found[flat], abs=1e-3) for site in others)
    mean = {name: sum(site[name] for site in found.values()) / len(found) for name in found[flat]}
    assert usage(model, "shape") == pytest.approx(mean)
