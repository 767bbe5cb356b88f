"""Adapters at the projector: the sum over the paths is what the released stage computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.errors import PathError
from pathweave.nn import Adapter, Projector
from pathweave.released.importer import assemble
from pathweave.released.projector import projector_adapters, projector_delta, projector_deltas
from tests.released.files import ORDER, seeded
from tests.released.test_import import checkpoint, small_run

USED = {"video": (0,), "audio": (0, 1), "depth": (1, 2), "pc": (0, 1, 2, 3)}
DIM, LLM_DIM, RANK = 16, 32, 2
WIDE = 64  # leaves room for the terms of many adapters


def retrained(position, index):
    """Versions as in a run whose depth stage trains audio's adapter again."""
    return 2 if index == 1 and position >= 2 else index


def module(state):
    adapter = Adapter(state["down.weight"].shape[1], len(state["up.bias"]), len(state["down.bias"]))
    adapter.load_state_dict(state)
    return adapter


def change(zero):
    """Make adapters zero maps, as they are where the released code never trained them."""

    def apply(state, position):
        for key, tensor in state.items():
            for index in zero:
                if f"llmProj_adapter_list.{index}.up_proj" in key and not (
                    index == 1 and position >= 2
                ):
                    state[key] = torch.zeros_like(tensor)

    return apply


CASES = {
    "as planned": dict(zero=(), projector=lambda position, index: index),
    "first never trained": dict(zero=(0,), projector=lambda position, index: index),
    "as the released code trains": dict(zero=(0, 1), projector=retrained),
    "trained again": dict(zero=(), projector=retrained),
}


def checkpoints(case):
    how = CASES[case]
    states = small_run(change=change(how["zero"]), projector=how["projector"])
    return [checkpoint(state, name) for state, name in zip(states, ORDER, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_the_sum_over_the_paths_is_what_the_stage_sums(case):
    stages = checkpoints(case)
    x = seeded("x", (5, DIM))
    added = [module(one.adapter)(x) for one in projector_deltas(stages)]
    for position, stage in enumerate(stages):
        wanted = sum(
            module(stage.adapter("projector", index))(x) for index in USED[ORDER[position]]
        )
        torch.testing.assert_close(sum(added[: position + 1]), wanted)


def test_what_a_path_adds():
    def terms(case):
        return [one.terms for one in projector_deltas(checkpoints(case))]

    assert terms("first never trained") == [[(1, 0)], [(1, 1)], [(1, 2)], [(1, 3)]]
    assert terms("as planned")[2:] == [[(1, 2), (-1, 0)], [(1, 3), (1, 0)]]
    assert terms("as the released code trains")[2:] == [[(1, 2), (1, 1)], [(1, 3)]]
    assert terms("trained again")[2:] == [[(1, 2), (1, 1), (-1, 0), (-1, 1)], [(1, 3), (1, 0)]]


def test_one_term_is_the_adapter_itself():
    stages = checkpoints("first never trained")
    for position, one in enumerate(projector_deltas(stages)):
        own = stages[position].adapter("projector", position)
        assert one.rank == RANK
        assert all(torch.equal(one.adapter[name], own[name]) for name in own)


@pytest.mark.parametrize("case", CASES)
def test_the_projector_computes_what_the_released_stage_computes(case):
    stages = checkpoints(case)
    imported = assemble(stages)
    projector = Projector(DIM, LLM_DIM)
    own = "projector."
    projector.load_state_dict(
        {k.removeprefix(own): v for k, v in imported.connector.items() if k.startswith(own)}
    )
    x = seeded("x", (2, 5, DIM))
    for stage in stages:
        with torch.no_grad():
            found = projector(x, imported.paths.route([stage.name] * 2))
            wanted = projector.linear.host(x) + sum(
                module(stage.adapter("projector", index))(x) for index in USED[stage.stage.prefix]
            )
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("stage", "index"), [(1, 0), (2, 0), (3, 1)])
def test_only_the_stage_known_for_it_may_train_an_earlier_adapter(stage, index):
    def again(position, listed):
        return stage if listed == index and position >= stage else listed

    name, before = ORDER[stage], ORDER[stage - 1]
    states = small_run(stage + 1, projector=again, change=lambda *_: None)
    rule = rf"{name}.pth: {name}_llmProj_adapter_list.{index} must equal that of {before}.pth, got"
    with pytest.raises(PathError, match=f"{rule} other values; give files of one run"):
        assemble([checkpoint(s, n) for s, n in zip(states, ORDER, strict=False)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_lists_of_adapters_become_paths_and_lists_again(data):
    """Whatever a stage leaves out, trains again or takes back: paths bit by bit, sums to rounding.

    A stage does not train what it leaves out.
    """
    lists, skips = [], []
    for position in range(data.draw(st.integers(1, 4))):
        earlier = list(range(position))
        skips.append(data.draw(st.sets(st.sampled_from(earlier))) if earlier else set())
        kept = [i for i in earlier if i not in skips[-1]]
        again = data.draw(st.sets(st.sampled_from(kept))) if kept else set()
        now = [random_adapter(position, i) if i in again else lists[-1][i] for i in earlier]
        lists.append([*now, random_adapter(position, position, zero=data.draw(st.booleans()))])
    made = paths_of(lists, skips)
    rebuilt: list = []
    for one in made:
        rebuilt.append(projector_adapters(one.adapter, one.terms, rebuilt[-1] if rebuilt else []))
    for one, other in zip(made, paths_of(rebuilt, skips), strict=True):
        assert one.terms == other.terms
        assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    x = seeded("x", (3, WIDE))
    added = torch.zeros(3, WIDE)
    for position, (one, mine, theirs) in enumerate(zip(made, rebuilt, lists, strict=True)):
        added = added + module(one.adapter)(x)
        for adapters in (mine, theirs):
            wanted = [a for i, a in enumerate(adapters) if i not in skips[position]]
            torch.testing.assert_close(added, sum(module(a)(x) for a in wanted), atol=1e-5, rtol=0)


def paths_of(lists, skips):
    """What each stage adds, given the lists and what each stage leaves out."""
    wanted = [
        {i: adapter for i, adapter in enumerate(now) if i not in skipped}
        for now, skipped in zip(lists, skips, strict=True)
    ]
    return [
        projector_delta(now, before) for now, before in zip(wanted, [{}, *wanted], strict=False)
    ]


def random_adapter(position, index, zero=False):
    shapes = {"scale": (1,), "down.weight": (RANK, WIDE), "down.bias": (RANK,),
              "up.weight": (WIDE, RANK), "up.bias": (WIDE,)}  # fmt: skip
    state = {name: seeded(f"{position} {index} {name}", shape) for name, shape in shapes.items()}
    return {k: torch.zeros_like(v) if zero and k.startswith("up") else v for k, v in state.items()}
