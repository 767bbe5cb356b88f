from pathlib import Path

import pytest
from pydantic import ValidationError

from pathweave.datasets.declaration import MediumPlace, datasets, find_dataset
from pathweave.errors import RecipeError
from scripts.datasets_table import with_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "datasets.md"


def test_the_document_is_that_of_the_declarations():
    """Otherwise run ``python -m scripts.datasets_table``."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text
    for dataset in datasets().values():
        assert f"`{dataset.name}`" in text
        for split in dataset.splits.values():
            assert all(Path(path).name in text for path in (*split.records, *split.files.values()))


@pytest.mark.parametrize("dataset", datasets().values(), ids=lambda dataset: dataset.name)
def test_a_declaration_is_complete(dataset):
    assert dataset.origin.startswith("https://")
    assert all(source.startswith("http") for source in dataset.sources)
    assert dataset.terms
    scored = [split for split in dataset.splits.values() if not split.learn]
    assert bool(scored) == bool(dataset.evaluation)
    is_closed = dataset.task == "classification" and bool(scored)
    assert bool(dataset.labels) == is_closed
    for split in dataset.splits.values():
        assert split.targets or split.turns
        if dataset.task == "qa":
            assert split.question or split.turns
            assert dataset.prompt.count("{}") == 1
        else:
            assert "{}" not in dataset.prompt


def test_numbers_of_the_paper():
    paper = {
        (dataset.name, name): split.paper
        for dataset in datasets().values()
        for name, split in dataset.splits.items()
    }
    assert paper["msrvtt_qa", "train"] == 149_075
    assert paper["audiocaps_caption", "train"] == 38_701
    assert paper["wavcaps", "train"] == 297_341
    assert paper["cap3d_caption", "train"] == 651_576
    assert paper["modelnet40", "test"] == 2468


def test_classes():
    counts = {name: len(find_dataset(name).labels) for name in
              ("esc50", "modelnet40", "nyu_v2", "sun_rgbd")}  # fmt: skip
    assert counts == {"esc50": 50, "modelnet40": 40, "nyu_v2": 10, "sun_rgbd": 19}
    merged = find_dataset("nyu_v2").splits["val"].translate
    assert len(merged) == 7
    assert set(merged.values()) == {("others",)}


def test_domains_of_the_paper():
    scored = {name for name, dataset in datasets().items() if dataset.domain == "in"}
    assert scored == {
        "coco_caption", "okvqa", "msrvtt_caption", "msrvtt_qa", "audiocaps_caption", "audiocaps_qa",
        "wavcaps", "audioset", "cc3m_depth", "llava_depth", "cap3d_caption", "cap3d_qa",
    }  # fmt: skip


def test_a_medium_is_somewhere():
    for fields in ({}, {"paths": "a", "field": "b"}):
        with pytest.raises(ValidationError, match="a medium must have either paths or a field"):
            MediumPlace(modality="smell", decoder="array", **fields)


def test_an_unknown_name():
    with pytest.raises(RecipeError, match=r"got 'nocap'; did you mean 'nocaps'\?"):
        find_dataset("nocap")
