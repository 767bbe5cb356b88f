import json
import shutil
from pathlib import Path

import pytest
import torch

from pathweave.errors import BaseMismatchError, DiskError, PathError
from pathweave.runs.connector_directory import load_carried, load_shared, save_shared
from pathweave.runs.loading import load_run
from tests.full_disk import full_disk
from tests.methods.runner import Runner
from tests.tiny import chain, randomise, tiny_model

SPECS = chain("sight", "sound", rank=0)


@pytest.fixture
def model():
    model = tiny_model(*SPECS)
    with torch.no_grad():
        for part in (model.qformer, model.projector):
            for parameter in part.parameters():
                parameter.normal_(std=0.2)
    return model


def test_what_is_saved_is_loaded_again(model, tmp_path):
    save_shared(model, tmp_path / "sound", {"sound"}, {"f": torch.ones(3)})
    fresh = tiny_model(*SPECS)
    for path in fresh.paths:
        randomise(path, std=0.1)
    paths = load_shared(fresh, tmp_path / "sound")
    assert fresh.base.fingerprint() == model.base.fingerprint()
    assert set(paths) == {"sight"}
    fresh.paths["sight"].load_state_dict(paths["sight"])
    assert fresh.paths["sight"].content_hash() == model.paths["sight"].content_hash()
    assert load_carried(tmp_path / "sound")["f"].tolist() == [1, 1, 1]
    save_shared(model, tmp_path / "sound", {"sound"}, {})
    assert load_carried(tmp_path / "sound") == {}
    assert {file.name for file in (tmp_path / "sound").iterdir()} == {
        *("connector.json", "connector.safetensors"),
    }


def change(file, content):
    file.write_bytes(content(file.read_bytes()))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("json", Path.unlink, r"sound must hold a connector \(connector.json, .*; copy the whole"),
        ("safetensors", Path.unlink, r"connector.safetensors must have sha256 .* got no file"),
        (
            "safetensors",
            lambda file: change(file, lambda content: content[:-1] + b"?"),
            r"must have sha256 .* file is damaged: copy the whole run",
        ),
        (
            "json",
            lambda file: change(file, lambda content: content.replace(b": 1,", b": 9,", 1)),
            r"must have format 1, got 9; install a newer version",
        ),
    ],
)
def test_damage_is_told(model, tmp_path, file, damage, message):
    save_shared(model, tmp_path / "sound", {"sound"}, {})
    damage(tmp_path / "sound" / f"connector.{file}")
    with pytest.raises(PathError, match=message):
        load_shared(model, tmp_path / "sound")


def test_another_base_is_refused(model, tmp_path):
    save_shared(model, tmp_path / "sound", {"sound"}, {})
    with pytest.raises(PathError, match=r"sound must fit base 'tiny', got: .*Unexpected key"):
        load_shared(tiny_model(*SPECS, text=False), tmp_path / "sound")
    model.llm.lm_head.weight.data[0, 0] += 1.0
    with pytest.raises(BaseMismatchError, match=r"must be loaded into base .*; load the language"):
        load_shared(model, tmp_path / "sound")


def test_a_full_disk_keeps_what_was_there(model, tmp_path):
    save_shared(model, tmp_path / "sound", {"sound"}, {"f": torch.ones(3)})
    with full_disk(), pytest.raises(DiskError, match="cannot be written: File too large; free"):
        save_shared(model, tmp_path / "sound", {"sound"}, {})
    assert load_carried(tmp_path / "sound")["f"].tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def sequential(tmp_path_factory, recipe_file, shared_home):
    """A short run of sequential tuning, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        return Runner(recipe_file, tmp_path_factory.mktemp("shared"))(
            "sequential", training__steps=1
        ).root


def test_paths_of_another_run_are_not_taken_for_those_of_this_one(sequential, tmp_path):
    run = shutil.copytree(sequential, tmp_path / "run")
    assert load_run(run)[0].paths.names == ["sight", "sound", "tilt"]
    described = run / "paths" / "tilt" / "path.json"
    about = json.loads(described.read_text(encoding="utf-8"))
    described.write_text(json.dumps(about | {"connector_before": "another"}), encoding="utf-8")
    with pytest.raises(BaseMismatchError, match=r"path 'sound' must be loaded into base"):
        load_run(run)
    assert load_run(run, ["tilt"])[0].paths.names == ["tilt"]


def test_what_a_later_stage_changed_must_fit(sequential, tmp_path):
    run = shutil.copytree(sequential, tmp_path / "run")
    model, _ = load_run(run)
    odd = tiny_model(*chain("sight", "sound", "tilt", rank=0))
    model.paths = odd.paths
    save_shared(model, run / "connectors" / "tilt", {"tilt"}, {})
    with pytest.raises(PathError, match=r"path 'sight' must fit what a later stage changed in it"):
        load_run(run)


def test_without_its_connector_a_run_is_refused(sequential, tmp_path):
    run = shutil.copytree(sequential, tmp_path / "run")
    shutil.rmtree(run / "connectors")
    with pytest.raises(BaseMismatchError, match=r"path 'sound' must be loaded into base"):
        load_run(run)
