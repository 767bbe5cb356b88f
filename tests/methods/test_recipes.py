"""The recipes of methods and ablations: each is that of MCL-mini with these fields changed."""

from itertools import pairwise
from pathlib import Path

import pytest

from pathweave.methods import METHODS
from pathweave.model.paths import matches
from pathweave.recipe.reading import load_recipe
from pathweave.runs.run_directory import differences
from tests.tiny import tiny_model

RECIPES = Path(__file__).parents[2] / "recipes"
MINI = load_recipe(RECIPES / "mcl_mini.yaml")
TUNED = {"training.lr": 5e-4, "training.projector_lr": 1e-3, "training.weight_decay": 0.01}
FASTER = {"training.lr": 3e-3}
METHOD_FIELDS = {
    "adapters": {},
    **dict.fromkeys(("eproj", "lora"), FASTER),
    **dict.fromkeys(("sequential", "l2", "wise_ft", "ewc", "lwf", "replay", "mera"), TUNED),
    **dict.fromkeys(("independent", "joint"), TUNED),
}
ABLATIONS = {
    "no_in_adapter": {"method.in_adapter": None},
    "no_gate": {"method.gate": None},
    **{f"in_adapter_{v}": {"method.in_adapter": v} for v in ("zero", "identity", "normal")},
    **{f"rank_{rank}": {"method.rank": rank} for rank in (2, 4, 8, 32, 64)},
    "sites_figure": {
        "method.sites": [
            *("*/self_attention/query", "*/self_attention/key", "*/self_attention/value"),
            *("*/cross_attention/query", "projector"),
        ]
    },
    "sites_released": {"method.sites": ["*_attention/*", "projector"]},
    "sites_feed_forward": {"method.sites": ["*", "*/query_ffn/*"]},
    "sites_both": {
        "method.sites": ["*", "llm/*/self_attn/*"],
        "method.plain_sites": ["projector", "llm/*"],
        "method.rank": 8,
        "method.plain_rank": 2,
        "training.llm_lr_share": 0.1,
    },
    "sites_llm": {
        "method.sites": ["llm/*/self_attn/*"],
        "method.rank": 4,
        "training.llm_lr_share": 0.1,
    },
    "gate_noisy_softmax": {"method.gate": "noisy_softmax"},
    "gate_top_k": {"method.gate": "top_k"},
    **{
        name: {"curriculum": ["image", *curriculum]}
        for name, curriculum in {
            "order_audio_point_cloud_video_depth": ["audio", "point_cloud", "video", "depth"],
            "order_depth_video_point_cloud_audio": ["depth", "video", "point_cloud", "audio"],
            "order_point_cloud_depth_audio_video": ["point_cloud", "depth", "audio", "video"],
            "audio_after_0": ["audio"],
            "audio_after_2": ["video", "depth", "audio"],
            "audio_after_3": ["video", "depth", "point_cloud", "audio"],
            "depth_after_0": ["depth"],
            "depth_after_1": ["video", "depth"],
            "point_cloud_after_0": ["point_cloud"],
            "point_cloud_after_1": ["video", "point_cloud"],
            "point_cloud_after_2": ["video", "audio", "point_cloud"],
        }.items()
    },
}


def files(folder):
    return {file.stem: file for file in sorted((RECIPES / folder).glob("*.yaml"))}


def values(recipe, dotted):
    value = recipe.model_dump(mode="json")
    for part in dotted.split("."):
        value = value[part]
    return value


def changed(recipe):
    before, after = (r.model_dump(mode="json", exclude={"name"}) for r in (MINI, recipe))
    return set(differences(before, after))


def test_every_method_and_no_other_file_has_a_recipe():
    assert set(files("methods")) == set(METHODS) - {"pathweave"} == set(METHOD_FIELDS)
    assert set(files("ablations")) == set(ABLATIONS)


@pytest.mark.parametrize("name", METHOD_FIELDS)
def test_a_method_differs_in_itself_and_in_how_it_is_trained(name):
    file = files("methods")[name]
    recipe = load_recipe(file)
    assert recipe.method.name == name
    own = {f"method.{name}"} if METHODS[name].options else set()
    assert changed(recipe) <= {"method.name", *own, *METHOD_FIELDS[name]}
    for field, value in METHOD_FIELDS[name].items():
        assert values(recipe, field) == value
    if METHODS[name].options and name != "mera":
        assert getattr(recipe.method, name) == METHODS[name].options()
    assert recipe.training_of("image") == MINI.training_of("image")
    assert f"recipes/methods/{name}.yaml --out runs/{name}\n" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_in_what_its_name_says(name):
    file = files("ablations")[name]
    recipe = load_recipe(file)
    # What an ablation says may be what MCL-mini's recipe says too.
    assert changed(recipe) <= set(ABLATIONS[name])
    for field, value in ABLATIONS[name].items():
        assert values(recipe, field) == value
    assert recipe.name != MINI.name
    assert f"recipes/ablations/{name}.yaml --out runs/{name}\n" in file.read_text(encoding="utf-8")
    assert load_recipe(file, quick=True).limit == load_recipe(MINI_FILE, quick=True).limit


MINI_FILE = RECIPES / "mcl_mini.yaml"


def test_the_four_orders_are_balanced():
    orders = [MINI.curriculum[1:]]
    orders += [load_recipe(f).curriculum[1:] for n, f in files("ablations").items() if "order" in n]
    assert len(orders) == 4
    names = set(orders[0])
    assert all(set(place) == names for place in zip(*orders, strict=True))
    followed = [pair for order in orders for pair in pairwise(order)]
    assert len(set(followed)) == len(followed) == 4 * 3


def test_the_sites_of_the_recipes():
    model = tiny_model()
    counts = {}
    for name in ("sites_figure", "sites_released", "sites_feed_forward"):
        sites = load_recipe(files("ablations")[name]).method.sites
        counts[name] = sum(matches(site, sites) for site in model.paths.hosts)
    # Three layers, of which two have cross-attention.
    assert counts == {
        "sites_figure": 3 * 3 + 2 + 1,
        "sites_released": 3 * 4 + 2 * 4 + 1,
        "sites_feed_forward": 3 * 4 + 2 * 4 + 1 + 3 * 2,
    }
    connector = [site for site in model.paths.hosts if not site.startswith("llm/")]
    everywhere = sum(matches(site, MINI.method.sites) for site in model.paths.hosts)
    assert everywhere == counts["sites_released"]
    assert len(connector) == everywhere + 3 * 2 * 2
