import json
import shutil

import pytest
import torch
from torch import nn

from pathweave.errors import DiskError, RunError
from pathweave.methods.settings import Training
from pathweave.train.checkpoint import load_checkpoint, save_checkpoint
from pathweave.train.schedule import make_optimizer
from tests.full_disk import full_disk

TRAINING = Training(lr=0.1)


def learner(seed: int, steps: int):
    """A small network after some steps of training."""
    torch.manual_seed(seed)
    modules = nn.ModuleDict({"path": nn.Linear(8, 8)})
    optimizer = make_optimizer(modules, TRAINING)
    for _ in range(steps):
        step(modules, optimizer)
    return modules, optimizer


def step(modules, optimizer):
    modules["path"](torch.ones(1, 8)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_what_is_restored_goes_on_exactly_as_what_was_saved(tmp_path):
    saved = learner(seed=0, steps=3)
    save_checkpoint(tmp_path / "point", *saved, {"stage": "sound", "step": 3})
    restored = learner(seed=1, steps=0)
    state = load_checkpoint(tmp_path / "point", *restored, "sound")
    assert state == {"stage": "sound", "step": 3}
    for pair in (saved, restored):
        step(*pair)
    for a, b in zip(saved[0].parameters(), restored[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_and_another_stage_are_no_checkpoint(tmp_path):
    modules, optimizer = learner(seed=0, steps=1)
    assert load_checkpoint(tmp_path / "point", modules, optimizer, "sound") is None
    save_checkpoint(tmp_path / "point", modules, optimizer, {"stage": "sound", "step": 1})
    others = learner(seed=1, steps=0)
    before = others[0]["path"].weight.clone()
    assert load_checkpoint(tmp_path / "point", *others, "tilt") is None
    assert torch.equal(others[0]["path"].weight, before)
    assert not others[1].state


@pytest.mark.parametrize("file", ["state.json", "trained.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_damage_is_refused(tmp_path, file, how):
    pair = learner(seed=0, steps=1)
    save_checkpoint(tmp_path / "point", *pair, {"stage": "sound", "step": 1})
    damaged = tmp_path / "point" / file
    if how == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(
        RunError, match=r"point.* must h.*, got .*remove the directory to train this"
    ):
        load_checkpoint(tmp_path / "point", *pair, "sound")


def test_a_checkpoint_without_hashes_is_read_and_checked(tmp_path):
    pair = learner(seed=0, steps=1)
    save_checkpoint(tmp_path / "point", *pair, {"stage": "sound", "step": 1})
    file = tmp_path / "point" / "state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    assert set(state.pop("files")) == {"trained.safetensors", "optimizer.safetensors"}
    file.write_text(json.dumps(state), encoding="utf-8")
    assert load_checkpoint(tmp_path / "point", *pair, "sound") == {"stage": "sound", "step": 1}
    (tmp_path / "point" / "optimizer.safetensors").write_bytes(b"short")
    with pytest.raises(
        RunError, match=r"point must hold a whole checkpoint \(state.json, .*; remove"
    ):
        load_checkpoint(tmp_path / "point", *pair, "sound")


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    save_checkpoint(tmp_path / "point", *learner(seed=0, steps=1), {"stage": "sound", "step": 1})
    other = nn.ModuleDict({"path": nn.Linear(4, 4)})
    with pytest.raises(RunError, match=r"must hold a whole checkpoint .*, got .*size mismatch"):
        load_checkpoint(tmp_path / "point", other, make_optimizer(other, TRAINING), "sound")


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path):
    modules, optimizer = learner(seed=0, steps=1)
    save_checkpoint(tmp_path / "point", modules, optimizer, {"stage": "sound", "step": 1})
    first = modules["path"].weight.clone()
    step(modules, optimizer)
    with full_disk(), pytest.raises(DiskError, match=r"cannot be written: File too large; free"):
        save_checkpoint(tmp_path / "point", modules, optimizer, {"stage": "sound", "step": 2})
    state = load_checkpoint(tmp_path / "point", modules, optimizer, "sound")
    assert state == {"stage": "sound", "step": 1}
    assert torch.equal(modules["path"].weight, first)
    assert [path.name for path in tmp_path.iterdir()] == ["point"]


def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    pair = learner(seed=0, steps=1)
    save_checkpoint(tmp_path / "point", *pair, {"stage": "sound", "step": 1})
    shutil.move(tmp_path / "point", tmp_path / ".point.old")
    assert load_checkpoint(tmp_path / "point", *pair, "sound") == {"stage": "sound", "step": 1}
    assert json.loads((tmp_path / "point" / "state.json").read_text(encoding="utf-8"))["step"] == 1
