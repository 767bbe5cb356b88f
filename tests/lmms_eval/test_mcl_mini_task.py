"""The tasks of MCL-mini: their files fit the recipe, their media are those of the benchmark."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from pathweave.data.manifest import Manifest
from pathweave.lmms_eval import mcl_mini_task as task
from pathweave.recipe.reading import load_recipe
from scripts.mcl_mini.check import MODALITIES, TASKS

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data" / "mcl-mini"
FILES = ROOT / "pathweave" / "lmms_eval" / "tasks"
SETS = [(name, kind) for name in MODALITIES for kind in TASKS]


class Loader(yaml.SafeLoader):
    """YAML of lmms-eval: functions by their names."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read(file):
    return yaml.load(file.read_text(encoding="utf-8"), Loader)


def test_every_set_is_a_task_that_asks_and_scores_as_the_recipe_does():
    recipe = load_recipe(ROOT / "recipes" / "mcl_mini.yaml")
    names = [f"mcl_mini_{name}_{kind}" for name, kind in SETS]
    assert read(FILES / "mcl_mini.yaml") == {"group": "mcl_mini", "task": names}
    for (name, kind), told in zip(SETS, names, strict=True):
        own = read(FILES / f"{told}.yaml")
        assert (own["task"], own["dataset_name"]) == (told, f"{name}_{kind}")
        shared, test_set = read(FILES / own["include"]), recipe.modalities[name].test[kind]
        assert shared["generation_kwargs"]["max_new_tokens"] == test_set.max_tokens
        [metric] = shared["metric_list"]
        assert metric["metric"] == test_set.metric
        for function in re.findall(
            r"!function (\S+)\.(\w+)", (FILES / own["include"]).read_text("utf-8")
        ):
            assert function[0] == task.__name__
            assert callable(getattr(task, function[1]))


@pytest.mark.skipif(not DATA.exists(), reason="data/mcl-mini is not checked out")
@pytest.mark.parametrize(("name", "kind"), [*SETS, ("joint", "heard")])
def test_messages_hold_the_question_and_the_media_of_a_row(name, kind, monkeypatch):
    monkeypatch.setenv("MCL_MINI", str(DATA))
    manifest = Manifest(DATA / name / f"{kind}-test.parquet")
    sample = manifest[3]
    parts = [part.model_dump() for part in sample.prompt]
    [turn] = task.to_messages({"messages": [{"role": "user", "content": parts}]})
    assert turn["role"] == "user"
    assert len(turn["content"]) == len(sample.prompt)
    for part, given in zip(sample.prompt, turn["content"], strict=True):
        assert given["type"] == part.type
        if part.is_text:
            assert given["text"] == part.text
            continue
        data = manifest.read_media(part)
        if part.type == "image":
            shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(np.asarray(given["url"]), shown)
        elif part.type == "audio":
            sound, rate = soundfile.read(io.BytesIO(data), dtype="float32")
            assert np.array_equal(given["url"]["array"], sound)
            assert given["url"]["sampling_rate"] == rate
        else:
            assert given["url"] == data


def test_answers_are_scored_as_everywhere_else():
    rows = [{"references": ["a cat"]}, {"references": ["a dog", "a big dog"]}]
    told = [task.answered(row, [said]) for row, said in zip(rows, ("A cat.", "a fox"), strict=True)]
    assert task.score_exact_match([each["exact_match"] for each in told]) == 50.0
    assert task.score_cider_d([each["cider_d"] for each in told]) > 0
