"""The fused form of a host's experts against the formula of the paper, written as loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pathweave.nn import Adapter, Experts, QFormer, QFormerConfig, Route, WovenLinear, woven_sites
from pathweave.nn.woven import weave, weave_together

DIM, OUT = 10, 7
GATES = ("softmax", "noisy_softmax", "top_k", None)
IN_ADAPTERS = ("identity", "zero", "normal", None)


def randomise(module, std=0.5):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def make(ranks, gate="softmax", in_adapter="identity", top_k=2, seed=0):
    """Experts of a path of rank ``ranks[-1]`` over predecessors of the other ranks."""
    torch.manual_seed(seed)
    earlier = [randomise(Adapter(DIM, OUT, rank)) for rank in ranks[:-1]]
    experts = Experts(DIM, OUT, ranks[-1], ranks[:-1], gate, top_k, in_adapter)
    return randomise(experts), earlier


def plain_weights(gate, x, num_experts):
    if gate is None:
        return torch.ones(*x.shape[:2], num_experts)
    logits = x @ gate.weight
    if gate.kind == "noisy_softmax" and gate.training:
        logits = logits + torch.randn_like(logits) * (F.softplus(x @ gate.noise_weight) + 0.01)
    weights = logits.exp()
    if gate.kind == "top_k":
        lowest_kept = logits.sort(dim=-1, descending=True).values[..., gate.k - 1 : gate.k]
        weights = weights * (logits >= lowest_kept)
    return weights / weights.sum(-1, keepdim=True)


def plain(experts, earlier, x):
    """y = sum_i g_i(x) * s_i * (W_up (F_i (W_down x + b)) + b), an expert after the other."""
    weights = plain_weights(experts.gate, x, len(earlier) + 1)
    y = torch.zeros(*x.shape[:2], OUT)
    for i, adapter in enumerate([*earlier, experts.adapter]):
        h = x @ adapter.down.weight.T + adapter.down.bias
        if i < len(experts.in_adapters):
            inner = experts.in_adapters[i]
            h = h @ inner.weight.T + inner.bias
        y = y + weights[..., i : i + 1] * adapter.scale * (
            h @ adapter.up.weight.T + adapter.up.bias
        )
    return y


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    gate=st.sampled_from(GATES),
    in_adapter=st.sampled_from(IN_ADAPTERS),
    top_k=st.integers(1, 5),
    training=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_the_fused_form_and_its_gradients_are_those_of_the_plain_loop(
    ranks, gate, in_adapter, top_k, training, seed
):
    experts, earlier = make(ranks, gate, in_adapter, top_k, seed)
    experts.train(training)
    owners = nn.ModuleList([experts, *earlier])
    x = torch.randn(2, 3, DIM, requires_grad=True)
    direction = torch.randn(2, 3, OUT)
    results = []
    for form in (lambda: experts.fuse(earlier)(x), lambda: plain(experts, earlier, x)):
        torch.manual_seed(seed)  # the noise of a noisy gate
        y = form()
        wanted = [x, *owners.parameters()]
        gradients = torch.autograd.grad((y * direction).sum(), wanted, allow_unused=True)
        results.append((y, gradients))
    (fused, fused_gradients), (slow, slow_gradients) = results
    torch.testing.assert_close(fused, slow, atol=1e-4, rtol=1e-4)
    for a, b in zip(fused_gradients, slow_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_frozen_predecessors_get_no_gradient():
    experts, earlier = make([2, 3, 4])
    for adapter in earlier:
        adapter.requires_grad_(False)
    experts.fuse(earlier)(torch.randn(1, 2, DIM)).square().sum().backward()
    assert all(p.grad is not None for p in experts.parameters())
    assert all(p.grad is None for adapter in earlier for p in adapter.parameters())


def test_the_order_of_predecessors_matters():
    experts, earlier = make([3, 3, 4])
    x = torch.randn(1, 2, DIM)
    swapped = experts.fuse(earlier[::-1])(x)
    assert not torch.allclose(experts.fuse(earlier)(x), swapped, atol=1e-2)


@pytest.mark.parametrize("gate", GATES)
def test_gate_weights_are_those_that_mix(gate):
    experts, earlier = make([2, 3, 4], gate)
    experts.eval()
    x = torch.randn(2, 3, DIM)
    torch.testing.assert_close(
        experts.fuse(earlier).gate_weights(x), plain_weights(experts.gate, x, 3)
    )


def test_a_single_expert_has_neither_gate_nor_in_adapter():
    experts, _ = make([4])
    assert experts.gate is None
    assert len(experts.in_adapters) == 0


def test_the_predecessors_must_be_as_many_as_the_path_was_made_with():
    experts, earlier = make([2, 3, 4])
    with pytest.raises(ValueError, match=r"earlier must hold 2 adapters, got 1; pass those of"):
        experts.fuse(earlier[:1])


def woven(site="a"):
    torch.manual_seed(9)
    return WovenLinear(nn.Linear(DIM, OUT), site)


@settings(max_examples=15, deadline=None)
@given(choice=st.lists(st.sampled_from(["none", "one", "two"]), min_size=1, max_size=6))
def test_rows_of_a_mixed_batch_are_those_of_separate_batches(choice):
    one, two = make([3], seed=1), make([2, 4], seed=2)
    mixtures = {
        "none": {},
        "one": {"a": one[0].eval().fuse(one[1])},
        "two": {"a": two[0].eval().fuse(two[1])},
    }
    layer = woven()
    x = torch.randn(len(choice), 3, DIM)
    mixed = layer(x, Route(tuple((mixtures[name], 1) for name in choice)))
    for i, name in enumerate(choice):
        row = x[i : i + 1]
        expected = layer.host(row) if name == "none" else layer.host(row) + mixtures[name]["a"](row)
        torch.testing.assert_close(mixed[i : i + 1], expected, atol=1e-5, rtol=1e-5)


def test_a_run_of_several_rows_is_one_path():
    experts, earlier = make([2, 4])
    mixture = {"a": experts.eval().fuse(earlier)}
    layer, x = woven(), torch.randn(5, 3, DIM)
    route = Route((({}, 2), (mixture, 3)))
    assert route.rows == 5
    y = layer(x, route)
    assert torch.equal(y[:2], layer.host(x)[:2])
    torch.testing.assert_close(y[2:], layer.host(x[2:]) + mixture["a"](x[2:]))


def test_a_site_that_no_path_adapts_is_the_host_alone():
    experts, earlier = make([2, 4])
    layer, x = woven("b"), torch.randn(2, 3, DIM)
    assert torch.equal(layer(x, Route((({"a": experts.fuse(earlier)}, 2),))), layer.host(x))
    assert torch.equal(layer(x, Route()), layer.host(x))


def test_sites_of_a_qformer_have_unique_names_in_order():
    shape = QFormerConfig(dim=8, num_layers=3, num_heads=2, hidden_dim=8, encoder_width=6)
    sites = list(woven_sites(QFormer(shape)))
    attention, feed_forward = ("query", "key", "value", "output"), ("expand", "contract")
    blocks = [
        *(("0/self_attention", attention), ("0/cross_attention", attention)),
        *(("0/query_ffn", feed_forward), ("1/self_attention", attention)),
        *(("1/query_ffn", feed_forward), ("2/self_attention", attention)),
        *(("2/cross_attention", attention), ("2/query_ffn", feed_forward)),
    ]
    assert sites == [f"layer_{block}/{part}" for block, parts in blocks for part in parts]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("num_earlier", [0, 1, 3])
def test_the_own_correction_is_whole_under_a_new_gate(gate, num_earlier):
    experts = Experts(DIM, OUT, 2, [2] * num_earlier, gate, top_k=2).eval()
    own = 1.0 if experts.gate is None else 1 / experts.gate.num_weighed
    assert own * experts.adapter.scale.item() == pytest.approx(1.0)
    if experts.gate is not None:
        weights = experts.gate(torch.randn(5, DIM))
        torch.testing.assert_close(weights.max(-1).values, torch.full((5,), own))


def gradients(outputs, wanted):
    direction = [torch.linspace(-1, 1, y.numel()).view_as(y) for y in outputs]
    summed = sum((y * d).sum() for y, d in zip(outputs, direction, strict=True))
    return torch.autograd.grad(summed, wanted, allow_unused=True)


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    gate=st.sampled_from(GATES),
    kinds=st.lists(st.sampled_from(["adapted", "left alone"]), min_size=1, max_size=3),
    hosts_learn=st.booleans(),
    x_learns=st.booleans(),
    is_mixed=st.booleans(),
)
def test_layers_of_one_input_give_the_plain_outputs_and_gradients(
    ranks, gate, kinds, hosts_learn, x_learns, is_mixed
):
    made = [make(ranks, gate, seed=seed) for seed in range(len(kinds))]
    layers = [woven(str(i)).requires_grad_(hosts_learn) for i in range(len(kinds))]
    x = torch.randn(4, 3, DIM, requires_grad=x_learns)
    owners = nn.ModuleList([each for experts, earlier in made for each in (experts, *earlier)])
    wanted = [*owners.eval().parameters(), *([x] if x_learns else [])]
    wanted += [p for layer in layers for p in layer.parameters() if hosts_learn]
    rows = 2 if is_mixed else 4
    adapted = [i for i, kind in enumerate(kinds) if kind == "adapted"]
    mixtures = {str(i): made[i][0].fuse(made[i][1]) for i in adapted}
    fast = weave_together(layers, x, Route(((mixtures, rows), *[({}, 2)] * is_mixed)))
    slow = [layer.host(x) for layer in layers]
    for i in adapted:
        correction = plain(*made[i], x[:rows])
        slow[i] = torch.cat([slow[i][:rows] + correction, slow[i][rows:]])
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)
    if not wanted or not any(y.requires_grad for y in slow):
        return
    for a, b in zip(gradients(fast, wanted), gradients(slow, wanted), strict=True):
        assert (a is None or not a.any()) if b is None else a is not None
        if b is not None:
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("gate", GATES)
def test_a_correction_has_the_bits_of_a_product_and_a_sum_also_in_training(gate):
    torch.manual_seed(0)
    layers = [WovenLinear(nn.Linear(768, 96), site).requires_grad_(False) for site in "ab"]
    earlier = [randomise(Adapter(768, 96, 8)) for _ in range(3)]
    experts = randomise(Experts(768, 96, 8, [8] * 3, gate)).eval()
    route = Route((({"a": experts.fuse(earlier)}, 2),))
    # A layer whose input is no block of memory has other last bits than one of a copy of it.
    for x in (torch.randn(2, 40, 768), torch.randn(2, 60, 768)[:, :40]):
        with torch.no_grad():
            expected = [layers[0].host(x) + route.runs[0][0]["a"](x), layers[1].host(x)]
            found = weave_together(layers, x, route)
        for a, b, c in zip(found, expected, weave_together(layers, x, route), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_a_host_of_lower_precision_rounds_the_correction_as_its_own_output():
    experts, earlier = make([2, 4])
    mixture, x = experts.eval().fuse(earlier), torch.randn(2, 3, DIM).bfloat16()
    layer = woven().bfloat16().requires_grad_(False)
    expected = layer.host(x) + mixture(x.float()).bfloat16()
    assert torch.equal(layer(x, Route((({"a": mixture}, 2),))), expected)


def test_frozen_layers_keep_one_gradient_of_their_input_and_none_of_theirs():
    experts, earlier = make([2, 4])
    for adapter in earlier:
        adapter.requires_grad_(False)
    layers = [woven(site).requires_grad_(False) for site in "ab"]
    x = torch.randn(2, 3, DIM, requires_grad=True)
    route = Route((({"a": experts.fuse(earlier), "b": experts.fuse(earlier)}, 2),))
    sum(y.sum() for y in weave_together(layers, x, route)).backward()
    assert x.grad is not None
    assert all(p.grad is not None for p in experts.parameters())
    assert all(p.grad is None for part in (*layers, *earlier) for p in part.parameters())


def test_the_output_of_a_foreign_layer_is_corrected_in_place_only_where_nothing_keeps_it():
    experts, earlier = make([2, 4])
    route, layer = Route((({"a": experts.eval().fuse(earlier)}, 2),)), woven().host
    x = torch.randn(2, 3, DIM)
    y = layer(x)
    before = y.detach().clone()
    woven_y = weave(y, x, route, "a")
    assert torch.equal(y, before)  # autograd keeps it
    with torch.no_grad():
        assert torch.equal(weave(before, x, route, "a"), woven_y)
