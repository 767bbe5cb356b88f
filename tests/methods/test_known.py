"""Each method on a case where its effect is known."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathweave.errors import PathWeaveError, RecipeError
from pathweave.methods import METHODS
from pathweave.methods.averaging import clone, move_towards, proximal_step
from pathweave.methods.ewc import fisher
from pathweave.methods.lesson import WeightedSet
from pathweave.methods.path import connector_weights
from pathweave.methods.replay_buffer import Subset, mixture, replay_buffer
from tests.methods.world import SENSORS, Sensor, World, equal, recipe

TWO = SENSORS[:2]


@pytest.fixture
def learn(tmp_path):
    """Learn a curriculum by a method."""

    def made(method, *curriculum, base=True, **options):
        return World(recipe(method, *curriculum, base=base, **options), tmp_path / method)

    return made


def with_method(recipe, **fields):
    """A recipe whose method has other values of some fields."""
    return recipe.model_copy(update={"method": recipe.method.model_copy(update=fields)})


@pytest.fixture
def sequential(learn):
    return learn("sequential", *TWO).learn_all().state()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("l2", {"strength": 0.0, "inner_epoch": None}),
        ("wise_ft", {"alpha": 1.0, "inner_epoch": 2}),
        ("ewc", {"strength": 0.0, "samples": 2}),
        ("lwf", {"weight": 0.0}),
    ],
)
def test_without_its_effect_a_method_is_sequential_tuning(learn, sequential, method, options):
    assert equal(learn(method, *TWO, **options).learn_all().state(), sequential)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("l2", {"strength": 1e30}),
        ("l2", {"strength": 1e30, "inner_epoch": None}),
        ("wise_ft", {"alpha": 0.0, "inner_epoch": 2}),
        ("ewc", {"strength": 1e30, "samples": 6}),
    ],
)
def test_with_all_of_its_effect_the_connector_does_not_move(learn, method, options):
    world = learn(method, *TWO, **options).learn("sight")
    before, path = world.connector(), world.state()
    world.learn("sound")
    assert equal(world.connector(), before)
    # The new path has learnt all the same.
    queries = world.state()["sound.queries"]
    assert not torch.equal(queries, path["sight.queries"])


@pytest.mark.parametrize(
    ("method", "weak", "strong"),
    [
        ("l2", {"strength": 1.0}, {"strength": 50.0}),
        ("ewc", {"strength": 1.0}, {"strength": 50.0}),
        ("wise_ft", {"alpha": 0.9, "inner_epoch": 1}, {"alpha": 0.3, "inner_epoch": 1}),
        ("lwf", {"weight": 0.1}, {"weight": 1000.0}),
    ],
)
def test_the_stronger_a_method_the_less_is_forgotten(learn, method, weak, strong):
    moved = []
    for options in (weak, strong):
        world = learn(method, *TWO, **options).learn("sight")
        before = world.tokens("sight")
        moved.append((world.learn("sound").tokens("sight") - before).square().mean().item())
    assert moved[1] < 0.9 * moved[0]


def test_sequential_tuning_forgets_and_pathweave_does_not(learn):
    lost = {}
    for method in ("sequential", "pathweave"):
        world = learn(method, *TWO).learn("sight")
        before, tokens = world.loss("sight"), world.tokens("sight")
        world.learn("sound")
        lost[method] = world.loss("sight") - before
        assert torch.equal(world.tokens("sight"), tokens) == (method == "pathweave")
    assert lost["pathweave"] == 0.0
    assert lost["sequential"] > 1.0


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].shares])
def test_methods_that_share_nothing_new_leave_earlier_outputs_bit_identical(learn, method):
    world = learn(method, *SENSORS).learn("sight").learn("sound")
    before = {name: world.tokens(name) for name in TWO}
    world.learn("tilt")
    assert all(torch.equal(world.tokens(name), before[name]) for name in TWO)


def test_adapters_are_pathweave_without_predecessors(learn):
    adapters = learn("adapters", *SENSORS).learn_all()
    alone = recipe("pathweave", *SENSORS)
    changes = {n: m.model_copy(update={"predecessors": ()}) for n, m in alone.modalities.items()}
    world = learn("pathweave", *SENSORS)
    world.recipe = alone.model_copy(update={"modalities": changes})
    assert equal(world.learn_all().state(), adapters.state())
    assert "sound.experts.projector.adapter.up.weight" in adapters.state()
    assert not any("gate" in name or "in_adapters" in name for name in adapters.state())


def test_a_projector_of_its_own_starts_as_the_shared_one(learn):
    world = learn("eproj", *TWO).learn("sight")
    shared = world.connector()
    lesson = next(METHODS["eproj"].lessons(world.context("sound")))
    own = world.model.paths["sound"].own
    assert set(own) == {"projector"}
    assert torch.equal(own["projector"].linear.host.weight, shared["projector.linear.host.weight"])
    assert {id(p) for p in lesson.trained.parameters()} == {
        id(p) for p in world.model.parameters() if p.requires_grad
    }
    assert {name.split(".")[1] for name, _ in lesson.trained.named_parameters()} == {
        *("queries", "input_norm", "positions", "own"),
    }


def test_independent_tuning_is_that_of_the_modality_alone(learn):
    world = learn("independent", *SENSORS).learn_all()
    alone = learn("independent", "sight", "tilt").learn("sight")
    # A stage draws by its position: here it is the third all the same.
    alone.recipe = alone.recipe.model_copy(update={"seed": 1})
    alone.learn("tilt")
    assert torch.equal(alone.tokens("tilt"), world.tokens("tilt"))
    own = {n: t for n, t in world.state().items() if n.startswith("tilt.")}
    assert equal(own, {n: t for n, t in alone.state().items() if n.startswith("tilt.")})
    assert len(own) > len(world.connector())


@pytest.mark.parametrize("projector_lr", [None, 1e-3])
def test_independent_tuning_of_one_modality_is_sequential_tuning(learn, projector_lr):
    states = []
    for method in ("sequential", "independent"):
        world = learn(method, *TWO)
        training = world.recipe.training.model_copy(update={"projector_lr": projector_lr})
        world.recipe = world.recipe.model_copy(update={"training": training})
        states.append(world.learn_all().state())
    sequential, independent = states
    for name, tensor in sequential.items():
        inside = name.split(".")[0] in ("qformer", "projector")
        assert torch.equal(independent[f"sound.own.{name}" if inside else name], tensor), name


def test_replay_of_everything_is_joint_training(learn):
    replay = learn("replay", *TWO, samples=100).learn_all()
    joint = learn("joint", *TWO).learn_all()
    assert equal(replay.state(), joint.state())
    some = learn("replay", *TWO, samples=2).learn_all()
    assert not equal(some.state(), joint.state())


def test_joint_training_draws_every_modality_alike_for_all_their_steps(learn):
    world = learn("joint", *SENSORS).learn("sight")
    lesson = next(METHODS["joint"].lessons(world.context("sound", "tilt")))
    assert [(source.samples.name, source.weight) for source in lesson.sets] == [
        *(("sound", 2.0), ("tilt", 2.0), ("sight", 2.0)),
    ]
    assert lesson.training.steps == 6
    trained = {id(p) for p in lesson.trained.parameters()}
    parts = (world.model.qformer, world.model.projector, world.model.paths)
    assert trained == {id(p) for part in parts for p in part.parameters()}


def test_a_buffer_is_the_same_in_every_stage_and_holds_as_many_as_asked_for(learn):
    world = learn("replay", *SENSORS, samples=4)
    kept = [replay_buffer(world.context(name), "sight", 4) for name in ("sound", "tilt")]
    assert kept[0] == kept[1]
    [source] = kept[0]
    chosen = source.samples
    assert len(chosen) == 4
    assert source.weight == 2.0
    assert chosen.prompt(1)[0].features.equal(Sensor("sight").prompt(chosen.indices[1])[0].features)
    assert chosen.answer(1) == Sensor("sight").answer(chosen.indices[1])
    assert chosen.length(0) == 1
    other = World(world.recipe.model_copy(update={"seed": 1}), world.root)
    assert replay_buffer(other.context("sound"), "sight", 4) != kept[0]
    [whole] = replay_buffer(world.context("sound"), "sight", 50)
    assert whole.samples.indices == tuple(range(6))


def test_a_buffer_is_split_over_data_sets_by_their_weight(learn):
    world = learn("replay", *TWO)
    sets = [WeightedSet(Sensor("sight", 40), 3.0), WeightedSet(Sensor("sight", 40), 1.0)]
    context = replace(world.context("sound"), sets=lambda _: sets)
    kept = replay_buffer(context, "sight", 8)
    assert [len(each.samples) for each in kept] == [6, 2]
    assert [each.weight for each in kept] == [3.0, 1.0]
    assert [len(each.samples) for each in replay_buffer(context, "sight", 1)] == [1, 1]


def test_a_mixture_draws_each_modality_as_often_as_asked_for():
    sets = [WeightedSet(Sensor("sight"), 2.0), WeightedSet(Sensor("sight", 3), 1.0)]
    others = [WeightedSet(Sensor("sound")), WeightedSet(Subset(Sensor("sound"), (0,)))]
    mixed = mixture(sets, others, sets, weight=0.5)
    assert [source.weight for source in mixed] == [2.0, 1.0, 0.75, 0.75, 1.0, 0.5]


def test_what_is_mixed_or_kept_is_drawn_as_balanced_as_what_it_comes_from(learn):
    world = learn("replay", *SENSORS, samples=4)
    world.balance = 0.7
    [kept] = replay_buffer(world.context("sound"), "sight", 4)
    assert kept.balance == 0.7
    mixed = mixture([WeightedSet(Sensor("sound"), balance=0.2)], [kept], weight=0.5)
    assert [source.balance for source in mixed] == [0.2, 0.7]
    world.learn("sight")
    lesson = next(METHODS["replay"].lessons(world.context("sound")))
    assert [source.balance for source in lesson.sets] == [0.7, 0.7]


def test_mera_with_one_modality_is_plain_training(learn):
    mera = learn("mera", "sight", base=False).learn_all()
    plain = learn("sequential", "sight", base=False).learn_all()
    assert equal(mera.state(), plain.state())


def test_mera_merges_then_tunes_what_each_path_has_for_itself(learn):
    world = learn("mera", *SENSORS, steps=2, samples=2, lr=0.5).learn("sight").learn("sound")
    weights = connector_weights(world.model)
    before = clone(weights)
    lessons = METHODS["mera"].lessons(world.context("tilt"))
    next(lessons)
    with torch.no_grad():
        for weight in weights.values():
            weight += 3.0
    realign = next(lessons)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, before[name] + 1.0)
        assert not weight.requires_grad
    trained = {id(p) for p in realign.trained.parameters()}
    assert trained == {id(p) for path in world.model.paths for p in path.parameters()}
    assert [(len(s.samples), s.weight) for s in realign.sets] == [(2, 2.0)] * 3
    assert (realign.training.steps, realign.training.lr) == (2, 0.5)


def test_the_average_is_that_of_the_start_and_every_inner_epoch(learn):
    world = learn("l2", *TWO, strength=0.0, inner_epoch=2).learn("sight")
    weights = connector_weights(world.model)
    before = clone(weights)
    lessons = METHODS["l2"].lessons(world.context("sound"))
    lesson = next(lessons)
    for step in (1, 2, 3):  # the second inner epoch is cut short by the end of the stage
        with torch.no_grad():
            for weight in weights.values():
                weight += 1.0
        lesson.after_step(step, 0.1)
    assert list(lessons) == []
    for name, weight in weights.items():
        torch.testing.assert_close(weight, before[name] + (0 + 2 + 3) / 3)


def test_wise_ft_goes_on_from_alpha_of_the_tuned_weights(learn):
    world = learn("wise_ft", *TWO, alpha=0.8, inner_epoch=2).learn("sight")
    weights = connector_weights(world.model)
    before = clone(weights)
    lesson = next(METHODS["wise_ft"].lessons(world.context("sound")))
    for step, expected in ((1, 1.0), (2, 0.8 * 2.0), (3, 0.8 * 2.6)):
        with torch.no_grad():
            for weight in weights.values():
                weight += 1.0
        lesson.after_step(step, 0.1)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, before[name] + expected)


def test_fisher_information_is_the_mean_squared_gradient(learn):
    model = learn("ewc", *TWO).learn("sight").model
    weights = connector_weights(model)
    for weight in weights.values():
        weight.requires_grad_(True)
    sensor = Sensor("sight", 3)
    found = fisher(model, weights, [WeightedSet(sensor)])
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for i in range(3):
        model(*([sensor.prompt(i)], [sensor.answer(i)]))[0].backward()
        for name, weight in weights.items():
            if weight.grad is not None:
                squares[name] += weight.grad.square()
                weight.grad = None
    mean = torch.cat([s.flatten() for s in squares.values()]).mean()
    for name, square in squares.items():
        torch.testing.assert_close(found[name], square / mean, rtol=1e-4, atol=1e-6)


def test_fisher_information_adds_up_over_stages(learn):
    world = learn("ewc", *SENSORS, samples=2).learn("sight").learn("sound")
    first = {name: tensor.clone() for name, tensor in world.method_state.items()}
    assert set(first) == set(connector_weights(world.model))
    world.learn("tilt")
    second = world.method_state
    assert all((second[name] >= first[name]).all() for name in first)
    total = torch.cat([tensor.flatten() for tensor in second.values()])
    assert total.mean().item() == pytest.approx(2.0, rel=1e-3)


@given(
    st.floats(0, 1e6),
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4),
)
def test_a_pull_is_the_implicit_step_of_a_quadratic_penalty(amount, values):
    start = {"w": torch.tensor(values)}
    weights = {"w": start["w"] + 1.0}
    move_towards(weights, start, {"w": proximal_step(torch.full_like(start["w"], amount))})
    expected = np.float64(values) + 1.0 / (1.0 + amount)
    torch.testing.assert_close(weights["w"].double(), torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_low_rank_tuning_is_one_update_of_that_rank_over_all_stages(learn):
    pytest.importorskip("peft")
    world = learn("lora", *SENSORS).learn("sight")
    before = world.connector()
    for stages, name in enumerate(("sound", "tilt")):
        world.learn(name)
        after = world.connector()
        assert after.keys() == before.keys()
        changed = {n for n in after if not torch.equal(after[n], before[n])}
        assert changed == {n for n in after if n.endswith("host.weight")}
        for n in changed:
            singular = torch.linalg.svdvals(after[n] - before[n])
            assert singular[0] > 1e-3, (n, stages)
            assert singular[2] < 1e-5, (n, stages)


def test_low_rank_tuning_heeds_the_sites(learn):
    pytest.importorskip("peft")
    world = learn("lora", *TWO).learn("sight")
    world.recipe = with_method(world.recipe, sites=("*/self_attention/key",))
    before = world.connector()
    after = world.learn("sound").connector()
    changed = [n for n in after if not torch.equal(after[n], before[n])]
    assert changed == [f"qformer.layers.{i}.self_attention.key.host.weight" for i in range(3)]


def test_low_rank_tuning_may_have_more_room_at_plain_sites(learn):
    pytest.importorskip("peft")
    world = learn("lora", *TWO).learn("sight")
    world.recipe = with_method(world.recipe, plain_rank=4)
    before = world.connector()
    after = world.learn("sound").connector()
    changed = {n: after[n] - before[n] for n in after if not torch.equal(after[n], before[n])}
    for n, update in changed.items():
        rank = 4 if n.startswith("projector") else 2
        assert torch.linalg.svdvals(update)[rank] < 1e-5, n
    assert torch.linalg.svdvals(changed["projector.linear.host.weight"])[3] > 1e-4


def test_low_rank_tuning_must_find_a_host(learn):
    pytest.importorskip("peft")
    world = learn("lora", *TWO).learn("sight")
    world.recipe = with_method(world.recipe, sites=("*/none",))
    expected = (
        r"method.sites must match a host, got \['\*/none'\]; hosts are layer_0/self_attention/"
    )
    with pytest.raises(RecipeError, match=expected):
        world.learn("sound")


def test_low_rank_tuning_needs_peft(learn, monkeypatch):
    world = learn("lora", *TWO).learn("sight")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PathWeaveError, match=r"peft must be installed .* 'pathweave\[peft\]'"):
        world.learn("sound")


@pytest.mark.parametrize("method", ["pathweave", "adapters"])
def test_adapters_may_have_more_room_at_plain_sites(learn, method):
    world = learn(method, *TWO).learn("sight")
    world.recipe = with_method(world.recipe, plain_rank=4)
    experts = world.learn("sound").model.paths["sound"].experts
    ranks = {site: module.adapter.rank for site, module in experts.items()}
    assert ranks.pop("projector") == 4
    assert set(ranks.values()) == {2}


def test_the_penalty_is_the_distance_to_the_old_tokens(learn):
    world = learn("lwf", *TWO, weight=2.0).learn("sight")
    world.model.projector.scale = 3.0  # the distance is relative to the size of the old tokens
    lesson = next(METHODS["lwf"].lessons(world.context("sound")))
    prompts = [Sensor("sound").prompt(i) for i in range(4)]
    assert lesson.penalty(prompts).item() < 1e-9  # rounding differs with and without gradients
    media, text = [prompt[0] for prompt in prompts], ["How is it?"] * 4
    old = torch.stack(world.model.soft_tokens(media, text))
    with torch.no_grad():
        for weight in connector_weights(world.model).values():
            weight *= 1.1
    new = torch.stack(world.model.soft_tokens(media, text))
    assert old.square().mean() > 8.0
    distance = ((new - old).square().mean((1, 2)) / old.square().mean((1, 2))).mean()
    torch.testing.assert_close(lesson.penalty(prompts), 2.0 * distance)
    parts = lesson.penalty(prompts[:1]) * 0.25 + lesson.penalty(prompts[1:]) * 0.75
    torch.testing.assert_close(parts, 2.0 * distance)
