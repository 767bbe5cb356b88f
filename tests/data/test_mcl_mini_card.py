"""The benchmark as `datasets` loads it: the same samples and the same bytes."""

from pathlib import Path

import numpy as np
import pytest

from pathweave.data.manifest import Manifest
from scripts.mcl_mini.card import DECODED, with_head
from scripts.mcl_mini.check import MODALITIES, SPLITS, TASKS

DATA = Path(__file__).parents[2] / "data" / "mcl-mini"
SETS = [*((name, task) for name in MODALITIES for task in TASKS), ("joint", "heard")]

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="data/mcl-mini is not checked out")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The library, which keeps what it makes in a directory of the tests."""
    library = pytest.importorskip("datasets", reason="the library datasets is not installed")
    cache = str(tmp_path_factory.mktemp("datasets"))
    return lambda config, split: library.load_dataset(
        str(DATA), config, split=split, cache_dir=cache
    )


def test_the_head_of_the_page_is_that_of_the_script():
    page = (DATA / "README.md").read_text(encoding="utf-8")
    assert with_head(page) == page
    assert with_head(page.split("\n---\n", 1)[1].lstrip("\n")) == page


@pytest.mark.filterwarnings("ignore")  # of the library's own code
@pytest.mark.parametrize(("modality", "task"), SETS)
def test_samples_are_those_of_the_manifest(datasets, modality, task):
    for split in SPLITS:
        loaded = datasets(f"{modality}_{task}", split)
        manifest = Manifest(DATA / modality / f"{task}-{split}.parquet")
        assert loaded["id"] == [sample.id for sample in manifest]
        row, sample = loaded[0], manifest[0]
        assert row["messages"][-1]["content"][0]["text"] == sample.answer
        assert row["references"] == list(sample.references)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", MODALITIES)
def test_media_are_declared_and_their_bytes_are_those_of_the_store(datasets, modality):
    library = pytest.importorskip("datasets")
    loaded = datasets(f"{modality}_media", "media")
    kinds = {"image": library.Image, "audio": library.Audio, "binary": library.Value}
    kind = DECODED.get(modality, "binary")
    assert isinstance(loaded.features["bytes"], kinds[kind])
    if kind == "image":
        assert min(loaded[0]["bytes"].size) > 0
    if kind != "binary":
        loaded = loaded.cast_column("bytes", kinds[kind](decode=False))
    manifest = Manifest(DATA / modality / "qa-test.parquet")
    place = {key: index for index, key in enumerate(loaded["key"])}
    for index in np.linspace(0, len(manifest) - 1, 5).astype(int).tolist():
        part = manifest[index].prompt[0]
        held = loaded[place[part.path.split("#")[1]]]["bytes"]
        assert (held if kind == "binary" else held["bytes"]) == manifest.read_media(part)
