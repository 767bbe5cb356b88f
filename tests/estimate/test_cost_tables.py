"""Tables that fit a terminal, and JSON whose parts add up."""

import io
import json

import pytest
from rich.console import Console

from pathweave.estimate.cost_tables import as_json, heading, tables
from pathweave.estimate.estimate import estimate_recipe
from pathweave.recipe.reading import parse_recipe

VICUNA = {
    "name": "vicuna",
    "base": "Salesforce/instructblip-vicuna-7b",
    "method": {"queries": 32, "rank": 8, "gate": "noisy_softmax"},
}
SENSE = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": 1408}}


def estimate_of(*names, **changes):
    tree = {**VICUNA, "modalities": dict.fromkeys(names, SENSE), "curriculum": list(names)}
    return estimate_recipe(parse_recipe({**tree, **changes}), modalities=2, batch_size=4)


@pytest.fixture(scope="module")
def estimate():
    return estimate_of("image", "sound", "range", "shape", "point_cloud", "sixth")


def shown(estimate, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(heading(estimate))
    for table in tables(estimate):
        console.print(table, crop=False)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_every_header_and_number_is_whole(estimate, width):
    text = shown(estimate, width)
    assert max(map(len, text.splitlines())) <= width
    assert_whole(estimate, text)
    assert text.count("Trained parameters") == 2  # five stages a table
    assert "6,738,423,808" in text


@pytest.mark.parametrize("width", [40, 80, 100])
def test_the_longest_names_are_whole(width):
    names = [f"a_point_cloud_of_the_sensor_number_{i}" for i in range(3)]
    found = estimate_of(*names, method={**VICUNA["method"], "name": "joint"}, base="mini")
    assert_whole(found, shown(found, width))


def assert_whole(estimate, text):
    """Every word of every cell is in the tables as it is: a cell may wrap between words alone."""
    assert "…" not in text
    words = set(text.split())
    for table in tables(estimate):
        for column in table.columns:
            for cell in (column.header, *column.cells):
                assert words >= {*str(cell).split()}


def test_it_says_how_the_reduction_is_counted(estimate):
    words = " ".join(shown(estimate).split())
    assert "full tuning: Q-Former, projector, and the stage's query tokens, input norm" in words
    assert "reduction: 1 - total / full tuning" in words


def test_what_a_base_came_with_has_no_cost_of_training(estimate):
    row = next(line for line in shown(estimate).splitlines() if "AdamW's moments" in line)
    assert row.split()[2:] == ["-", "0.01", "0.01", "0.01", "0.01"]


def test_a_stage_that_trains_the_connector_says_so():
    text = shown(estimate_of("sight", base="mini", training={"connector": True}))
    assert any("connector itself" in line and "33,721,152" in line for line in text.splitlines())


def test_json_adds_up(estimate):
    plain = json.loads(json.dumps(as_json(estimate)))
    ready, *stages = plain["stages"]
    assert (ready["training"], ready["step"], ready["trained"]["total"]) == (None, None, 0)
    for stage in stages:
        for part in ("trained", "training", "inference", "step", "answer"):
            values = dict(stage[part])
            assert values.pop("total") == sum(values.values()) > 0
        assert stage["reduction"] == 1 - stage["trained"]["total"] / stage["full_tuning"]
        load = stage["load"]
        assert load["sequence"] == load["units"] * load["queries"] + load["text"] + load["answer"]


def test_a_batch_multiplies_activations_and_keys_alone():
    one, four = (
        estimate_recipe(
            parse_recipe({**VICUNA, "modalities": {"sense": SENSE}, "curriculum": ["sense"]}),
            batch_size=size,
        ).stages[0]
        for size in (1, 4)
    )
    assert four.inference.keys_and_values == 4 * one.inference.keys_and_values
    assert 3.9 < four.training.activations / one.training.activations < 4
    for part in ("llm", "encoder", "connector", "gradients", "optimizer"):
        assert getattr(one.training, part) == getattr(four.training, part)
