import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pathweave.errors import BaseMismatchError, PathError, RecipeError
from pathweave.evaluate.inspect import inspect_run
from pathweave.model.base import save_base
from pathweave.model.paths import Paths
from pathweave.nn import Projector, QFormer
from pathweave.recipe.reading import parse_recipe
from pathweave.released import UNBOUND, bind, write_import
from pathweave.released.importer import assemble
from pathweave.released.layout import CheckpointStage, hosts
from pathweave.runs.assistant import load
from pathweave.runs.loading import load_base, load_run
from pathweave.runs.path_directory import describe_path, load_order, load_path
from pathweave.storage.atomic import sha256_file
from tests.published import write_published
from tests.released.files import ORDER, WIDTHS, instructblip_state, random_state
from tests.released.test_import import checkpoint, small_run
from tests.tiny import LLM_DIM, tiny_base

NAMES = list(WIDTHS)


@pytest.fixture(scope="module")
def imported():
    states = [instructblip_state(), *small_run()]
    return assemble([checkpoint(s, n) for s, n in zip(states, ["image", *ORDER], strict=True)])


def released_base(imported, seed=0):
    """A base whose connector has the sizes of the files, and other weights."""
    base = tiny_base(seed)
    shape = replace(imported.shape, dropout=0.1)
    base.qformer, base.projector = QFormer(shape).eval(), Projector(shape.dim, LLM_DIM)
    return base


def recipe(directory, names=NAMES, widths=WIDTHS):
    modalities = {
        name: {
            "decoder": {"kind": "array"},
            "encoder": {"kind": "precomputed", "width": widths[name]},
            "cue": f"{name}:",
        }
        for name in names
    }
    tree = {"name": "released", "base": str(directory), "modalities": modalities}
    return parse_recipe({**tree, "curriculum": list(names)})


def test_without_a_base(imported, tmp_path):
    out = tmp_path / "out"
    report = write_import(imported, out)
    assert sorted(p.name for p in out.iterdir()) == ["connector", "import.json", "paths"]
    about = json.loads((out / "connector/connector.json").read_text(encoding="utf-8"))
    assert about["qformer"]["dim"] == 16
    assert about["projector_scale"] is None
    written = load_file(out / "connector/connector.safetensors")
    assert written.keys() == imported.connector.keys()
    assert all(torch.equal(written[name], t) for name, t in imported.connector.items())
    paths = Paths(16, 24, hosts(imported.shape, imported.llm_dim))
    places = {place.name: place for place in (out / "paths").iterdir()}
    for name in load_order(places):
        path = load_path(places[name], paths, UNBOUND)
        assert path.content_hash() == imported.paths[name].content_hash()
    assert sorted(paths.names) == sorted(NAMES)
    assert json.loads((out / "import.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(report)
    )
    with pytest.raises(BaseMismatchError, match="must be loaded into base unbound"):
        load_path(places["image"], Paths(16, 24, {}), "another")


def test_where_a_path_comes_from(imported, tmp_path):
    write_import(imported, tmp_path / "out")
    described = describe_path(tmp_path / "out/paths/point_cloud")
    assert described["released"] == {
        "file": "pc.pth",
        "quirks": True,
        "projector_terms": [[1, 3]],
    }
    assert described["trained_parameters"] == sum(described["parameters"].values())
    assert "projector_terms" not in describe_path(tmp_path / "out/paths/image")["released"]


def test_with_a_base_and_a_recipe_it_is_a_run(imported, tmp_path, home):
    save_base(released_base(imported), tmp_path / "base", whole=True)
    base = released_base(imported)
    out = tmp_path / "run"
    report = write_import(imported, out, base, recipe(tmp_path / "base"))
    assert report["base_fingerprint"] == base.fingerprint() != released_base(imported).fingerprint()
    assert not base.fresh_projector
    model, _ = load_run(out)
    assert model.paths.names == NAMES
    for name, tensor in imported.connector.items():
        assert torch.equal(model.base.connector_state()[name], tensor)
    inspected = inspect_run(out)
    assert list(inspected["paths"]) == NAMES
    for name in NAMES:
        features = tmp_path / f"{name}.npy"
        np.save(features, np.ones((5, WIDTHS[name]), np.float32))
        part = {"type": name, "path": str(features)}
        answers = load(out).ask([[part, {"type": "text", "text": "What?"}]], max_tokens=2)
        assert len(answers) == 1


def test_the_base_must_have_the_sizes_of_the_files(imported):
    base = released_base(imported)
    base.qformer = tiny_base().qformer
    with pytest.raises(
        BaseMismatchError, match=r"must have a Q-Former with .*dim=16.*got .*; give"
    ):
        bind(imported, base)
    base = released_base(imported)
    base.projector = Projector(16, LLM_DIM, scale=1.0)
    with pytest.raises(BaseMismatchError, match=r"projector to width 32, .* width 32, scaled;"):
        bind(imported, base)
    base.projector = Projector(16, 40)
    with pytest.raises(
        BaseMismatchError, match=r"plain projector to width 32, .* width 40; give the"
    ):
        bind(imported, base)


def test_a_recipe_of_other_stages_is_refused(imported, tmp_path):
    other = recipe(tmp_path, ["image", "audio"])
    with pytest.raises(
        RecipeError, match=r"must start with \['image', 'video', .* got \['image', '"
    ):
        write_import(imported, tmp_path / "out", released_base(imported), other)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(imported, tmp_path):
    with pytest.raises(PathError, match="must be a new directory, got one that exists; choose"):
        write_import(imported, tmp_path)


def stage_of(base, prefix, position=-1):
    """A random file for a base of any size."""
    adapted = position >= 0
    stage = CheckpointStage(
        prefix=prefix,
        shape=base.qformer.shape,
        llm_dim=base.projector.linear.host.out_features,
        num_queries=3,
        own_width=7 if adapted else base.qformer.shape.encoder_width,
        position=position,
        num_adapters=2 if adapted else 0,
        num_in_adapters=1 if adapted else 0,
        rank=2 if adapted else 0,
    )
    return checkpoint(random_state(stage, aliases=False), prefix or "blip2", heads=2)


@pytest.mark.parametrize(
    ("kind", "prefixes"),
    [("instructblip-llama", ["image", "video", "audio"]), ("blip2-opt", [""])],
)
def test_a_published_connector_takes_the_place_of_the_base_s_own(kind, prefixes, tmp_path, home):
    published = write_published(tmp_path / "published", kind)
    before = {file: sha256_file(file) for file in published.directory.iterdir() if file.is_file()}
    base = load_base(str(published.directory))
    own = {name: tensor.clone() for name, tensor in base.connector_state().items()}
    found = assemble([stage_of(base, prefix, i - 1) for i, prefix in enumerate(prefixes)])
    names = found.paths.names
    widths = {path.spec.name: path.spec.encoder_width for path in found.paths}
    run = recipe(published.directory, names, widths)
    write_import(found, tmp_path / "run", base, run)
    model, _ = load_run(tmp_path / "run")
    assert model.paths.names == names
    for name, tensor in model.base.connector_state().items():
        assert torch.equal(tensor, found.connector[name])
        assert not torch.equal(tensor, own[name])
    for path in found.paths:
        assert model.paths[path.spec.name].content_hash() == path.content_hash()
    assert before == {file: sha256_file(file) for file in before}, "a file of the base was changed"
