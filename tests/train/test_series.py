"""A sensor with an order, from CSV files to answers: learnt, saved, proved, asked, dropped."""

import json
import shutil

import numpy as np
import pytest
import torch

from pathweave.data.manifest import write_manifest
from pathweave.model.prompt import Medium
from pathweave.runs.assistant import load
from pathweave.runs.loading import load_run, make_readers
from pathweave.runs.path_directory import describe_path
from tests.whole_runs import command, write_recipe

MOTION = {
    "decoder": {"kind": "series", "rate": 10.0, "time": "t", "channels": ["x", "y"]},
    "encoder": {"kind": "series", "channels": 2},
    "patches": {"length": "0.4 s", "width": 16, "layers": 1},
    "cue": "motion:",
    "train": {"qa": {"manifest": "motion-train.jsonl"}},
    "test": {"qa": {"manifest": "motion-test.jsonl", "metric": "ranking"}},
}


def write_motion(directory, count=8):
    """Recordings that rise or fall; level, scale and length tell nothing."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for i in range(count):
            label = ("low", "high")[i % 2]
            length = int(random.integers(20, 40))
            ramp = np.linspace(-1, 1, length) * (1 if label == "high" else -1)
            values = random.normal(size=2) * 5 + random.uniform(1, 9) * (
                ramp[:, None] + 0.3 * random.normal(size=(length, 2))
            )
            lines = [f"{t / 10:.1f},{x:.4f},{y:.4f}" for t, (x, y) in enumerate(values)]
            file = directory / f"motion-{split}-{i}.csv"
            file.write_text("\n".join(["t,x,y", *lines]), encoding="utf-8")
            content = [{"type": "motion", "path": file.name}, {"type": "text", "text": "Where to?"}]
            messages = [
                {"role": "user", "content": content},
                {"role": "assistant", "content": label},
            ]
            rows.append(
                {
                    "id": file.stem,
                    "messages": messages,
                    "licence": "CC0-1.0",
                    "choices": ["low", "high"],
                }
            )
        write_manifest(directory / f"motion-{split}.jsonl", rows)


@pytest.fixture(scope="module")
def run(shared_home, tmp_path_factory):
    """A run that has learnt a sensor of sets, then one of recordings; to be read only."""
    directory = tmp_path_factory.mktemp("series")
    recipe = write_recipe(directory / "recipe", "sight")
    write_motion(recipe.parent)
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["sight"]["positions"] = "none"
    tree["modalities"]["motion"] = MOTION
    recipe.write_text(json.dumps({**tree, "curriculum": ["sight", "motion"]}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        assert command("evolve", recipe, "--out", directory / "run", "--json") == 0
    return directory / "run"


pytestmark = pytest.mark.usefixtures("home")


def tokens(model, path, features):
    with torch.no_grad():
        return model.soft_tokens([Medium(path, features)], ["Where to?"])[0]


def test_a_recording_keeps_its_order_and_a_declared_set_has_none(run):
    model, _ = load_run(run)
    torch.manual_seed(0)
    order = torch.randperm(30)
    series = torch.cat([torch.randn(1, 30, 2), torch.ones(1, 30, 2)], dim=2)
    moved = tokens(model, "motion", series) - tokens(model, "motion", series[:, order])
    assert moved.abs().max() > 1e-3
    features = torch.randn(1, 30, 12)
    same = tokens(model, "sight", features) - tokens(model, "sight", features[:, order])
    assert same.abs().max() < 1e-5


def test_the_patch_encoder_is_counted_saved_and_proved_with_its_path(run, tmp_path, capsys):
    spec = describe_path(run / "paths/motion")["spec"]
    assert spec["patches"] == {"length": 4, "stride": 2, "width": 16, "layers": 1, "dropout": 0.1}
    assert spec["positions"] == "sinusoidal"
    path = load_run(run)[0].paths["motion"]
    assert path.count()["patches"] == sum(p.numel() for p in path.patches.parameters()) > 1000
    assert sum(path.count().values()) == sum(p.numel() for p in path.parameters())
    assert not torch.equal(path.patches.level_std, torch.ones(2))
    capsys.readouterr()
    assert command("verify", run, "--json") == 0
    assert all(each["identical"] for each in json.loads(capsys.readouterr().out))
    other = shutil.copytree(run, tmp_path / "run")
    description = json.loads((other / "paths/motion/path.json").read_text(encoding="utf-8"))
    description["spec"]["patches"]["stride"] = 3
    (other / "paths/motion/path.json").write_text(json.dumps(description), encoding="utf-8")
    assert command("verify", other) != 0


def test_a_recording_is_asked_about(run):
    assistant = load(run)
    file = run.parent / "recipe/motion-test-1.csv"
    question = [{"type": "motion", "path": str(file)}, {"type": "text", "text": "Where to?"}]
    [answer] = assistant.ask([question], max_tokens=4)
    assert isinstance(answer, str)


def test_channels_may_stand_in_another_order_and_must_be_there(run, tmp_path, capsys):
    text = (run.parent / "recipe/motion-test-1.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines()]
    swapped, short = tmp_path / "swapped.csv", tmp_path / "short.csv"
    swapped.write_text("\n".join(f"{y},{t},{x}" for t, x, y in rows), encoding="utf-8")
    short.write_text("\n".join(f"{t},{x}" for t, x, _ in rows), encoding="utf-8")
    readers = make_readers(load_run(run)[1])
    item = [(swapped.read_bytes(), "a"), (text.encode(), "b")]
    one, other = readers["motion"].read(item)
    assert torch.equal(one, other)
    assert command("ask", run, "--motion", short, "Where to?") == 2
    assert "must have one column 'y', got no such column among t, x" in capsys.readouterr().err


def test_a_path_without_positions_in_its_description_loads(run, tmp_path, capsys):
    """As those are that were written before there were any."""
    old = shutil.copytree(run, tmp_path / "run")
    file = old / "paths/sight/path.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    assert description["spec"].keys().isdisjoint({"positions", "columns", "patches"})
    assert command("verify", old) == 0
