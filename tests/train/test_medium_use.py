"""The alarm when the medium is not used: silent where it is, and heard where it is not."""

import json
from dataclasses import replace

import pytest
import torch

from pathweave.model.paths import PathSpec
from pathweave.model.prompt import blanked
from pathweave.train.medium_use import MediumUse, medium_use
from tests.tiny import WIDTH, medium, tiny_model
from tests.whole_runs import command, events, write_recipe

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model():
    return tiny_model(PathSpec("sight", WIDTH, 3), PathSpec("sound", WIDTH, 3))


def prompts(*media):
    return [[each, "What is it?"] for each in media]


def test_the_three_losses_are_those_of_the_three_prompts(model):
    media = [medium("sight", seed=i) for i in range(3)]
    answers = ["a", "a", "b"]
    use = medium_use(model, prompts(*media), answers)

    def loss(*shown):
        total, tokens = model(prompts(*shown), answers)
        return total.item() / tokens

    assert use.loss == pytest.approx(loss(*media))
    zeros = [replace(each, features=torch.zeros_like(each.features)) for each in media]
    assert use.blank == pytest.approx(loss(*zeros))
    # A sample gets the medium of the next one with another answer.
    assert use.swapped == pytest.approx(loss(media[2], media[2], media[0]))
    assert use.share == pytest.approx((use.swapped - use.loss) / use.swapped)


def test_media_are_exchanged_within_a_path_alone(model):
    media = [medium("sight"), medium("sound", seed=1), medium("sight", seed=2)]
    answers = ["a", "b", "c"]
    use = medium_use(model, prompts(*media), answers)
    total, tokens = model(prompts(media[2], media[1], media[0]), answers)
    assert use.swapped == pytest.approx(total.item() / tokens)


def test_where_nothing_can_be_exchanged_nothing_is_said(model):
    assert medium_use(model, [["What is it?"]] * 2, ["a", "b"]) is None
    assert medium_use(model, prompts(medium("sight")), ["a"]) is None
    assert medium_use(model, prompts(medium("sight"), medium("sound")), ["a", "b"]) is None


def test_looking_leaves_the_model_as_it_was(model):
    for mode in (True, False):
        model.train(mode)
        medium_use(model, prompts(medium("sight"), medium("sight", seed=1)), ["a", "b"])
        assert model.training == mode
        assert all(p.grad is None for p in model.parameters())


def test_blanking_takes_the_features_and_nothing_else():
    shown = medium("sight")
    text, blank = blanked(["What?", shown])
    assert text == "What?"
    assert (blank.path, blank.modality) == (shown.path, shown.modality)
    assert blank.features.shape == shown.features.shape
    assert not blank.features.any()


@pytest.mark.parametrize(
    ("loss", "swapped", "used"),
    [
        (1.0, 1.0, False),
        (1.0, 1.01, False),
        (1.0, 1.1, True),
        (2.0, 1.0, False),
        (0.0, 0.0, False),  # one answer to everything, learnt by heart
    ],
)
def test_a_medium_is_used_where_anothers_is_worse(loss, swapped, used):
    assert MediumUse(loss, 1.0, swapped).is_used == used


def learn(directory, unrelated, **training):
    """Train the connector on a sensor; where unrelated, files are dealt out by chance."""
    recipe = write_recipe(directory, "sight", limit=None)
    for split in ("train",) if unrelated else ():
        file = directory / f"sight-{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for i, row in enumerate(rows):  # every second label, whatever the medium's class
            row["messages"][1]["content"] = ("low", "high")[i // 2 % 2]
        file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["training"] |= {"steps": 60, "batch_size": 8, "medium_every": 10, **training}
    recipe.write_text(json.dumps(tree), encoding="utf-8")
    assert command("evolve", recipe, "--out", directory / "run", "--json") == 0
    return directory / "run"


def test_the_alarm_is_silent_where_the_medium_tells_the_answer(tmp_path):
    run = learn(tmp_path, unrelated=False)
    looks = events(run, "medium_use")
    assert [look["step"] for look in looks] == [10, 20, 30, 40, 50, 60]
    assert looks[-1]["loss"] < 0.95 * looks[-1]["swapped"], looks
    assert not events(run, "medium_unused")


def test_the_alarm_is_heard_where_the_medium_tells_nothing(tmp_path, capsys):
    run = learn(tmp_path, unrelated=True)
    alarms = events(run, "medium_unused")
    assert alarms, events(run, "medium_use")
    assert alarms[0]["step"] >= 30
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    use = results["stages"][0]["medium_use"]
    assert use["loss"] > 0.97 * use["swapped"]
    assert command("inspect", run) == 0
    shown = capsys.readouterr().out
    assert f"{use['loss']:.2f} / {use['swapped']:.2f}" in shown
    assert command("evolve", tmp_path / "recipe.yaml", "--out", run) == 0
    assert "Is the medium used?" in capsys.readouterr().out


def test_no_looks_are_taken_where_none_are_wished(tmp_path):
    run = learn(tmp_path, unrelated=False, medium_every=None, steps=4)
    assert not events(run, "medium_use")
