import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from pathweave.nn import Experts, Route
from pathweave.nn.hooked import Carried, carried, carrying, hook_linear
from pathweave.nn.woven import WovenLinear, weave
from tests.tiny import randomise_module

DIM, OUT, TOKENS = 6, 8, 5


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(DIM, OUT).requires_grad_(False)


def mixture(seed):
    torch.manual_seed(seed)
    earlier, own = Experts(DIM, OUT, 2), Experts(DIM, OUT, 2, [2])
    for experts in (earlier, own):
        randomise_module(experts)
    return own.fuse([earlier.adapter])


def tokens(*chosen):
    return torch.tensor(chosen)


def plain(layer, x, runs, site="host"):
    """The slow form: each token by itself."""
    y = layer(x).clone()
    for mixtures, chosen in runs:
        for index in chosen.tolist():
            row, place = divmod(index, x.shape[1])
            if site in mixtures:
                y[row, place] += mixtures[site](x[row, place][None, None])[0, 0]
    return y


def test_each_token_gets_the_correction_of_its_path(layer):
    x = torch.randn(3, TOKENS, DIM)
    runs = (
        ({"host": mixture(1)}, tokens(0, 3, 7)),
        ({"host": mixture(2)}, tokens(1, 14)),
        ({"another": mixture(3)}, tokens(2)),
    )
    woven = weave(layer(x), x, Route(runs, tokens=TOKENS), "host")
    torch.testing.assert_close(woven, plain(layer, x, runs), atol=1e-5, rtol=1e-5)
    untouched = torch.ones(3 * TOKENS, dtype=torch.bool)
    untouched[[0, 3, 7, 1, 14]] = False
    assert torch.equal(woven.flatten(0, 1)[untouched], layer(x).flatten(0, 1)[untouched])


def test_gradients_of_tokens_on_paths_are_those_of_the_plain_form(layer):
    x = torch.randn(2, TOKENS, DIM, requires_grad=True)
    one, two = mixture(1), mixture(2)
    runs = (({"host": one}, tokens(0, 3, 7)), ({"host": two}, tokens(1, 9)))
    found = []
    for y in (weave(layer(x), x, Route(runs, TOKENS), "host"), plain(layer, x, runs)):
        wanted = [x, *(leaf for each in (one, two) for leaf in (each.inward, each.outward))]
        found.append(torch.autograd.grad(y.square().sum(), wanted, retain_graph=True))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_all_tokens_of_a_row_are_the_row(layer):
    x = torch.randn(2, TOKENS, DIM)
    one, two = {"host": mixture(1)}, {"host": mixture(2)}
    rows = WovenLinear(layer, "host")(x, Route(((one, 1), (two, 1))))
    indices = torch.arange(2 * TOKENS).split(TOKENS)
    single = weave(layer(x), x, Route(((one, indices[0]), (two, indices[1])), TOKENS), "host")
    torch.testing.assert_close(rows, single, atol=1e-6, rtol=1e-6)  # some processors: equal


def test_a_layer_may_be_given_the_last_tokens_alone(layer):
    x = torch.randn(2, TOKENS, DIM)
    route = Route((({"host": mixture(1)}, tokens(0, 3, 4, 8)),), TOKENS)
    whole = weave(layer(x), x, route, "host")
    last = weave(layer(x[:, -2:]), x[:, -2:], route, "host")
    torch.testing.assert_close(last, whole[:, -2:], atol=1e-6, rtol=1e-6)


def test_a_layer_that_is_given_more_than_the_sequence_is_refused(layer):
    x = torch.randn(2, TOKENS + 1, DIM)
    route = Route((({"host": mixture(1)}, tokens(0)),), TOKENS)
    with pytest.raises(ValueError, match=r"5 a row or the last of them, got 6; leave it out"):
        weave(layer(x), x, route, "host")


def test_without_a_route_a_hooked_layer_is_what_it_was(layer):
    x = torch.randn(2, TOKENS, DIM)
    before = layer(x)
    hook_linear(layer, "host")
    hook_linear(layer, "host")
    assert len(layer._forward_hooks) == 1
    assert torch.equal(layer(x), before)
    with carrying(Carried()):
        assert torch.equal(layer(x), before)
    with carrying(Carried(Route((({"other": mixture(1)}, tokens(0)),), TOKENS))):
        assert torch.equal(layer(x), before)


def test_a_lower_precision_keeps_its_type(layer):
    hook_linear(layer.bfloat16(), "host")
    x = torch.randn(2, TOKENS, DIM).bfloat16()
    for route in (
        Route((({"host": mixture(1)}, tokens(0)),), TOKENS),
        Route((({"host": mixture(1)}, 2),)),
    ):
        with carrying(Carried(route)):
            assert layer(x).dtype == torch.bfloat16


def test_an_exception_leaves_no_route_behind(layer):
    with pytest.raises(RuntimeError), carrying(Carried()):
        layer(torch.randn(1, DIM + 1))
    assert carried() is None


def routes_and_outputs(layer):
    x = torch.randn(2, TOKENS, DIM)
    routes = [Route((({"host": mixture(i)}, tokens(i, i + 1)),), TOKENS) for i in range(3)]
    return x, routes, [weave(layer(x), x, route, "host") for route in routes]


def test_threads_do_not_see_each_other(layer):
    x, routes, expected = routes_and_outputs(layer)
    hook_linear(layer, "host")

    def call(number):
        with carrying(Carried(routes[number % 3])):
            return layer(x)

    with ThreadPoolExecutor(4) as pool:
        for number, y in enumerate(pool.map(call, range(60))):
            assert torch.equal(y, expected[number % 3])
    assert carried() is None


def test_asyncio_tasks_do_not_see_each_other(layer):
    x, routes, expected = routes_and_outputs(layer)
    hook_linear(layer, "host")

    async def call(number):
        with carrying(Carried(routes[number])):
            await asyncio.sleep(0.001 * (3 - number))
            first = layer(x)
            await asyncio.sleep(0)
            return first, layer(x)

    async def all_of_them():
        return await asyncio.gather(*map(call, range(3)))

    for number, found in enumerate(asyncio.run(all_of_them())):
        for y in found:
            assert torch.equal(y, expected[number])
