import math

import pytest
import torch
from torch import nn

from pathweave.methods.settings import Training
from pathweave.nn import Experts
from pathweave.train.schedule import learning_rate_factor, make_optimizer, set_learning_rate


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    training = Training(steps=14, warmup=4, min_lr_share=0.2)
    factors = [learning_rate_factor(step, training) for step in range(15)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[14] == pytest.approx(0.2)
    assert sorted(factors[4:], reverse=True) == factors[4:]


@pytest.mark.parametrize("warmup", [0, 3, 10])
def test_the_rate_is_positive_at_every_step_also_with_a_long_warmup(warmup):
    training = Training(steps=3, warmup=warmup)
    factors = [learning_rate_factor(step, training) for step in range(3)]
    assert all(0 < factor <= 1 for factor in factors)
    assert learning_rate_factor(99, Training(steps=3, warmup=0)) == 0


def modules() -> nn.ModuleDict:
    return nn.ModuleDict({"path": nn.Linear(2, 3), "projector": nn.Linear(3, 2)})


def test_every_parameter_is_in_one_group_and_only_matrices_are_decayed():
    trained = modules()
    optimizer = make_optimizer(trained, Training(weight_decay=0.3))
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in trained.parameters()}
    assert len(grouped) == 4
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] == 0.3) for p in group["params"])


def test_the_projector_may_have_a_rate_of_its_own():
    trained, training = modules(), Training(lr=0.1, projector_lr=0.4, warmup=1, steps=3)
    optimizer = make_optimizer(trained, training)
    assert set_learning_rate(optimizer, 0, training) == pytest.approx(0.05)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(trained["path"].bias)] == pytest.approx(0.05)
    assert rates[id(trained["projector"].weight)] == pytest.approx(0.2)


def test_up_projections_and_gates_may_have_rates_of_their_own():
    experts = Experts(4, 3, rank=2, earlier_ranks=[2], gate="noisy_softmax")
    trained = nn.ModuleDict({"path": nn.ModuleList([nn.Linear(4, 4), experts])})
    ups = set(experts.adapter.up.parameters())
    gates = set(experts.gate.parameters())
    assert (len(ups), len(gates)) == (2, 2)
    for up_lr, gate_lr in ((0.4, 0.01), (0.4, None), (None, None)):
        training = Training(lr=0.1, up_lr=up_lr, gate_lr=gate_lr)
        groups = make_optimizer(trained, training).param_groups
        peaks = {p: group["peak_lr"] for group in groups for p in group["params"]}
        for parameter in trained.parameters():
            own = up_lr if parameter in ups else gate_lr if parameter in gates else None
            assert peaks[parameter] == (own or 0.1)


def test_experts_inside_the_language_model_may_learn_at_a_share_of_the_rate():
    experts = {site: Experts(4, 3, rank=2) for site in ("projector", "llm/layers/0/q")}
    path = nn.ModuleDict({"experts": nn.ModuleDict(experts)})
    training = Training(lr=0.1, up_lr=0.4, llm_lr_share=0.5)
    groups = make_optimizer(nn.ModuleDict({"path": path}), training).param_groups
    peaks = {p: group["peak_lr"] for group in groups for p in group["params"]}
    for site, share in (("projector", 1.0), ("llm/layers/0/q", 0.5)):
        adapter = experts[site].adapter
        assert peaks[adapter.down.weight] == pytest.approx(0.1 * share)
        assert peaks[adapter.up.weight] == pytest.approx(0.4 * share)


def test_a_module_without_vectors_makes_no_empty_group():
    trained = nn.ModuleDict({"path": nn.Linear(2, 2, bias=False)})
    optimizer = make_optimizer(trained, Training(lr=0.5))
    assert len(optimizer.param_groups) == 1
    trained["path"].weight.grad = torch.ones(2, 2)
    before = trained["path"].weight.clone()
    optimizer.step()
    assert not torch.equal(trained["path"].weight, before)


def test_the_warmup_may_rise_from_a_rate_above_zero():
    trained = modules()
    training = Training(lr=1.0, projector_lr=3.0, warmup=3, warmup_start_lr=0.2, steps=5)
    optimizer = make_optimizer(trained, training)
    rates = [set_learning_rate(optimizer, step, training) for step in range(4)]
    assert rates == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert set_learning_rate(optimizer, 1, training) == pytest.approx(0.6)
    group = next(g for g in optimizer.param_groups if g["peak_lr"] == 3.0)
    assert group["lr"] == pytest.approx(0.2 + (3.0 - 0.2) * 0.5)
    from_zero = Training(lr=1.0, warmup=3, steps=5)
    assert set_learning_rate(optimizer, 1, from_zero) == learning_rate_factor(1, from_zero)


def test_the_decay_of_the_running_means_is_that_of_the_recipe():
    optimizer = make_optimizer(modules(), Training(betas=(0.8, 0.95)))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.95)}
