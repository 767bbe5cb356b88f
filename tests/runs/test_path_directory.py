import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from pathweave.errors import PathError
from pathweave.nn.kernels import KernelSpec
from pathweave.runs.path_directory import (
    describe_path,
    load_order,
    load_path,
    load_proof,
    save_path,
)
from pathweave.storage.atomic import sha256_file
from tests.tiny import chain, tiny_model

NAMES = ("sight", "sound", "range")


def saved(directory, **fields):
    """Write three paths and return them with where each is."""
    model = tiny_model(*chain(*NAMES, **fields))
    places = {name: directory / name for name in NAMES}
    for path in model.paths:
        save_path(path, model.paths, places[path.spec.name], "base-1")
    return model.paths, places


@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", "top_k", None])
@pytest.mark.parametrize("in_adapter", ["identity", None])
def test_round_trip(tmp_path, gate, in_adapter):
    paths, places = saved(tmp_path, gate=gate, in_adapter=in_adapter, plain_sites=("projector",))
    fresh = tiny_model().paths
    for name in NAMES:
        path = load_path(places[name], fresh, "base-1")
        assert path.spec == paths[name].spec
        assert path.content_hash() == paths[name].content_hash()
        assert not path.training
        assert not any(p.requires_grad for p in path.parameters())
    assert fresh.names == list(NAMES)


def test_a_kernel_encoder_is_saved_with_all_that_it_has_measured(tmp_path):
    [spec] = chain("sight")
    kernels = KernelSpec(reach=20, biases=2, width=8)
    model = tiny_model(replace(spec, encoder_width=4, patches=kernels))
    path = model.paths["sight"]
    windows = [torch.cat([torch.randn(30, 2), torch.ones(30, 2)], dim=1) for _ in range(3)]
    path.standardise_input(windows)
    save_path(path, model.paths, tmp_path / "sight", "base-1")
    again = load_path(tmp_path / "sight", tiny_model().paths, "base-1")
    assert again.spec.patches == kernels
    assert again.content_hash() == path.content_hash()
    with torch.no_grad():
        for before, after in zip(path.project(windows), again.project(windows), strict=True):
            assert torch.equal(before, after)
    assert path.count()["patches"] == 8 * (84 * 2 * 2 + 1) + 8 * (4 + 1)


def test_the_description(tmp_path):
    model = tiny_model(*chain("sight", "sound", "range"))
    proof = {"features_0": torch.ones(1, 2)}
    about = {"scores": {"qa": 71.5}, "licences": {"data": ["CC0-1.0"]}}
    save_path(model.paths["range"], model.paths, tmp_path / "range", "base-1", about, proof)
    described = describe_path(tmp_path / "range")
    assert described["predecessors"] == {"sound": model.paths["sound"].content_hash()}
    assert described["content_hash"] == model.paths["range"].content_hash()
    assert described["parameters"] == model.paths["range"].count()
    assert described["scores"] == {"qa": 71.5}
    assert set(described["files"]) == {"path.safetensors", "proof.safetensors"}
    assert set(described["versions"]) == {"python", "torch", "transformers"}
    assert torch.equal(load_proof(tmp_path / "range")["features_0"], proof["features_0"])
    assert sorted(f.name for f in tmp_path.rglob("*")) == sorted(
        ["range", "path.json", *described["files"]]
    )


def test_saving_again_replaces_what_was_there(tmp_path):
    model = tiny_model(*chain("sight"))
    proof = {"features_0": torch.ones(1, 2)}
    save_path(model.paths["sight"], model.paths, tmp_path / "sight", "base-1", proof=proof)
    save_path(model.paths["sight"], model.paths, tmp_path / "sight", "base-2")
    assert describe_path(tmp_path / "sight")["base_fingerprint"] == "base-2"
    assert load_proof(tmp_path / "sight") == {}


def edit(place, change):
    """Change the description of a path, as a newer or a broken writer would."""
    file = place / "path.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    change(described)
    file.write_text(json.dumps(described), encoding="utf-8")


def replace_tensors(place, content):
    """Replace the tensors of a path and mend their hash."""
    file = place / "path.safetensors"
    file.write_bytes(content(file.read_bytes()))
    edit(place, lambda described: described["files"].update({file.name: sha256_file(file)}))


def with_stranger(content):
    return save({**load(content), "stranger": torch.ones(1)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A saved path, to be copied."""
    return saved(tmp_path_factory.mktemp("paths"))[1]["sight"]


NO_PATH = r"sight must hold a path .*; copy the whole directory"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: edit(place, lambda d: d.update(format=2)), "format 1, got 2; install a new"),
        (lambda place: (place / "path.json").unlink(), NO_PATH),
        *(
            (lambda place, text=text: (place / "path.json").write_text(text, "utf-8"), NO_PATH)
            for text in ("", "[]", '{"format": 1}', '{"files": {}}', "{")
        ),
        *(
            (lambda place, key=key: edit(place, lambda d: d.pop(key)), rf"hold a path .*{key}")
            for key in ("spec", "base_fingerprint", "predecessors")
        ),
        (
            lambda place: edit(place, lambda d: d["spec"].update(colour="red")),
            r"must hold a path .*, got .*'colour'.*; copy",
        ),
        (
            lambda place: edit(place, lambda d: d["spec"].update(num_queries=9)),
            r"path\.safetensors must fit its spec, got: .*queries",
        ),
        (
            lambda place: replace_tensors(place, lambda _: b"no tensors"),
            r"must hold a path \(path\.json, .*, got SafetensorError",
        ),
        (
            lambda place: replace_tensors(place, with_stranger),
            r"must fit its spec, got: .*stranger",
        ),
    ],
)
def test_a_damaged_path_is_refused(whole, tmp_path, damage, message):
    place = shutil.copytree(whole, tmp_path / "sight")
    damage(place)
    fresh = tiny_model().paths
    with pytest.raises(PathError, match=message):
        load_path(place, fresh, "base-1")
    assert fresh.names == []


def test_a_path_that_is_there_already_is_refused(tmp_path):
    paths, places = saved(tmp_path)
    with pytest.raises(PathError, match="name must be new, got 'sight'"):
        load_path(places["sight"], paths, "base-1")
    assert paths.names == list(NAMES)


def test_the_order_puts_predecessors_first(tmp_path):
    _, places = saved(tmp_path)
    backwards = {name: places[name] for name in reversed(NAMES)}
    order = load_order(backwards)
    assert sorted(order) == sorted(NAMES)
    assert order.index("sound") < order.index("range")
    assert load_order(backwards, ["range"]) == ["sound", "range"]
    assert load_order(backwards, []) == []


def test_a_missing_predecessor_is_named(tmp_path):
    _, places = saved(tmp_path)
    del places["sound"]
    with pytest.raises(PathError, match=r"path 'range' must find path 'sound', got \['range', 's"):
        load_order(places)
    with pytest.raises(PathError, match=r"the run must find path 'shape', got"):
        load_order(places, ["shape"])


def test_a_path_without_proof_has_none(tmp_path):
    _, places = saved(tmp_path)
    assert load_proof(places["sight"]) == {}


def test_a_path_without_hosts_that_its_pattern_matches_is_read_as_it_is(tmp_path):
    model = tiny_model(*chain("sight"))
    spec = chain("sight", "sound", sites=("layer_0/*",))[1]
    feed_forward = [site for site in model.paths.hosts if "_ffn" in site]
    path = model.paths.expand(spec, without=feed_forward)
    assert len(path.experts) == 2 * 4
    save_path(path, model.paths, tmp_path / "sound", model.base.fingerprint())
    fresh = tiny_model(*chain("sight"))
    read = load_path(tmp_path / "sound", fresh.paths, fresh.base.fingerprint())
    assert read.experts.keys() == path.experts.keys()
    assert read.content_hash() == path.content_hash()
