"""Every method is measured by what it does."""

import pytest

from pathweave.estimate.estimate import estimate_recipe
from pathweave.methods import METHODS
from pathweave.model.paths import matches
from pathweave.nn import woven_sites
from pathweave.recipe.reading import load_recipe
from tests.tiny import WIDTH, tiny_base, write_tiny_recipe

CONNECTOR = sum(
    p.numel() for part in (tiny_base().qformer, tiny_base().projector) for p in part.parameters()
)
OWN = 2 * 16 + 2 * WIDTH + 1  # query tokens, input norm and positions of a path
PROJECTOR = 16 * 32 + 32
KNOWN: dict = {}  # estimates by method: each takes a second


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_tiny_recipe(tmp_path_factory.mktemp("methods"), "sight", "sound", "tilt")


def estimated(recipe, method):
    if method not in KNOWN:
        changes = {"method.name": method, "method.plain_sites": []}
        KNOWN[method] = estimate_recipe(load_recipe(recipe, changes), 1, 1).stages
    return KNOWN[method]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_known(recipe, method):
    first, *later = estimated(recipe, method)
    assert first.trained.total == CONNECTOR + OWN == first.full_tuning
    assert [stage.label for stage in later] == (
        ["sound +1"] if method == "joint" else ["sound", "tilt"]
    )
    for stage in (first, *later):
        assert stage.training.activations > 0
        assert 0 < stage.answer.connector < stage.step.connector
        assert 0 < stage.answer.llm < stage.step.llm


@pytest.mark.parametrize(
    ("method", "connector", "earlier"),
    [
        ("sequential", CONNECTOR, 0),
        ("l2", CONNECTOR, 0),
        ("wise_ft", CONNECTOR, 0),
        ("ewc", CONNECTOR, 0),
        ("lwf", CONNECTOR, 0),
        ("replay", CONNECTOR, 2 * OWN),
        ("mera", CONNECTOR, 2 * OWN),
        ("independent", CONNECTOR, 0),
        ("eproj", PROJECTOR, 0),
    ],
)
def test_a_method_trains_what_it_says(recipe, method, connector, earlier):
    last = estimated(recipe, method)[-1].trained
    assert (last.connector, last.earlier, last.queries + last.input_norm + last.positions) == (
        connector,
        earlier,
        OWN,
    )
    assert last.total == connector + earlier + OWN


def test_joint_training_trains_every_path(recipe):
    trained = estimated(recipe, "joint")[-1].trained
    assert (trained.connector, trained.earlier) == (CONNECTOR, OWN)
    assert trained.queries + trained.input_norm + trained.positions == 2 * OWN


def test_a_low_rank_update_is_counted(recipe):
    sites = woven_sites(tiny_base().qformer) | woven_sites(tiny_base().projector)
    hosts = [woven.host for site, woven in sites.items() if matches(site, ("*",))]
    expected = sum(2 * (host.in_features + host.out_features) for host in hosts)
    for stage in estimated(recipe, "lora")[1:]:
        assert (stage.trained.low_rank, stage.trained.connector) == (expected, 0)


@pytest.mark.parametrize(
    ("method", "copies"),
    [("pathweave", 0), ("sequential", 0), ("wise_ft", 1), ("lwf", 1), ("mera", 1), ("l2", 2)],
)
def test_copies_that_a_method_holds_are_counted(recipe, method, copies):
    assert estimated(recipe, method)[-1].training.copies == copies * CONNECTOR * 4


def test_the_importance_of_weights_is_held(recipe):
    second, third = estimated(recipe, "ewc")[1:]
    # The weights before the stage, their importance so far, and that of the last stage.
    assert second.training.copies == third.training.copies == 3 * CONNECTOR * 4


def test_distillation_runs_the_connector_twice_more(recipe):
    plain, distilled = (estimated(recipe, method)[1].step for method in ("sequential", "lwf"))
    assert distilled.llm == plain.llm
    assert 1.5 < distilled.connector / plain.connector < 2.5
