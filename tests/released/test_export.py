import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from pathweave.errors import PathError
from pathweave.model.base import save_base
from pathweave.model.paths import PathSpec
from pathweave.nn import QFormerConfig
from pathweave.released import export_directory, import_files, write_import
from pathweave.released.checkpoint import QUIRKS
from pathweave.released.importer import assemble
from pathweave.released.layout import CheckpointStage, Role
from pathweave.runs.path_directory import describe_path, save_path
from pathweave.storage.atomic import sha256_file
from tests.released.files import (
    ORDER,
    SMALL_HEADS,
    instructblip_state,
    random_state,
    small_keys,
    write_run,
)
from tests.released.test_import import checkpoint, natural, small_run
from tests.released.test_projector import CASES, change
from tests.tiny import chain, tiny_model


def imported_again(directory, out, **how):
    """Export, and import the files."""
    report = export_directory(directory, out)
    files = [out / file for file in report["files"].values()]
    return report, import_files(files, num_heads=SMALL_HEADS, **how)


def assert_same(one, other):
    """Two imports are the same bit by bit."""
    assert one.paths.names == other.paths.names
    for a, b in zip(one.paths, other.paths, strict=True):
        assert a.spec == b.spec
        assert a.content_hash() == b.content_hash()
    assert one.connector.keys() == other.connector.keys()
    assert all(torch.equal(t, other.connector[name]) for name, t in one.connector.items())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The small run, imported and exported: first the files, then the import, then the export."""
    root = tmp_path_factory.mktemp("exported")
    files = write_run(root, change=natural)
    torch.save(instructblip_state(), root / "image.pth")
    imported = import_files([*files, root / "image.pth"], num_heads=SMALL_HEADS)
    write_import(imported, root / "in")
    report, again = imported_again(root / "in", root / "out")
    return root, imported, report, again


def test_importing_the_export_gives_the_same_paths(exported):
    _, imported, report, again = exported
    assert_same(imported, again)
    assert report["notes"] == []
    assert list(report["files"]) == ["image", "video", "audio", "depth", "point_cloud"]
    assert report["files"]["point_cloud"] == "pc.safetensors"


@pytest.mark.parametrize("position", range(4))
def test_the_export_has_the_keys_and_the_tensors_of_the_released_file(exported, position):
    root, imported, report, _ = exported
    modality = ORDER[position]
    theirs = torch.load(root / f"{modality}.pth", weights_only=True)["model"]
    ours = load_file(root / "out" / f"{modality}.safetensors")
    assert {key: tuple(t.shape) for key, t in ours.items()} == dict(small_keys(modality))
    checkpoint = imported.checkpoints[position + 1]
    assert report["keys"][checkpoint.name] == len(theirs)
    for role in (Role.CONNECTOR, Role.PATH, Role.PREDECESSOR, Role.BUFFER):
        for key in checkpoint.keys(role):
            assert torch.equal(ours[key].reshape(theirs[key].shape), theirs[key]), key


def test_what_was_never_trained_is_written_untrained(exported):
    root, *_ = exported
    video = load_file(root / "out" / "video.safetensors")
    place = "video_Qformer.bert.encoder.layer.0.attention.self.query"
    assert video[f"{place}_adapter_list.3.up_proj.weight"].count_nonzero() == 0
    assert video[f"{place}_adapter_list.3.down_proj.weight"].count_nonzero() > 0
    assert video[f"{place}_adapter_list.3.scale"].item() == 1
    assert torch.equal(video[f"{place}_in_adapter_list.0.weight"], torch.eye(2))


def test_the_export_says_how_to_read_it(exported):
    root, *_ = exported
    with safe_open(root / "out/depth.safetensors", "pt") as file:
        assert file.metadata() == {QUIRKS: "true"}
    with safe_open(root / "out/image.safetensors", "pt") as file:
        assert not file.metadata()


def test_a_pickle_made_of_the_export_is_read_too(exported, tmp_path):
    root, imported, report, _ = exported
    for file in report["files"].values():
        torch.save({"model": load_file(root / "out" / file)}, tmp_path / f"{file}.pth")
    files = [tmp_path / f"{file}.pth" for file in report["files"].values()]
    assert_same(imported, import_files(files, num_heads=SMALL_HEADS))


def test_exporting_twice_gives_the_same_bytes(exported, tmp_path):
    root, _, report, _ = exported
    export_directory(root / "in", tmp_path / "out")
    for file in report["files"].values():
        assert sha256_file(tmp_path / "out" / file) == sha256_file(root / "out" / file)


@pytest.mark.parametrize(
    ("case", "quirks"), [*((case, True) for case in CASES), ("trained again", False)]
)
def test_projector_adapters_that_are_no_plain_sum_come_back(tmp_path, case, quirks):
    how = CASES[case]
    states = small_run(change=change(how["zero"]), projector=how["projector"])
    if not quirks:
        states = [{k: v for k, v in s.items() if "middle_proj" not in k} for s in states]
    imported = assemble([checkpoint(s, n, quirks) for s, n in zip(states, ORDER, strict=True)])
    write_import(imported, tmp_path / "in")
    _, again = imported_again(tmp_path / "in", tmp_path / "out")
    assert_same(imported, again)


def model_directory(tmp_path, specs, scale=None):
    """Paths of our own, as a run without a language model."""
    model = tiny_model(*specs)
    model.projector.scale = model.base.projector.scale = scale
    directory = tmp_path / "run"
    save_base(model.base, directory / "base")
    for path in model.paths:
        save_path(path, model.paths, directory / "paths" / path.spec.name, "base-1")
    return directory, model


def own_specs(*names, **fields):
    return chain(*names, **{"gate": "noisy_softmax", "plain_sites": ("projector",), **fields})


@pytest.mark.parametrize("gate", ["noisy_softmax", "softmax"])
def test_paths_of_our_own_runs(tmp_path, gate):
    names = ("image", "tilt", "depth", "point_cloud")
    directory, model = model_directory(tmp_path, own_specs(*names, gate=gate))
    report = export_directory(directory, tmp_path / "out")
    again = import_files([tmp_path / "out" / f for f in report["files"].values()], num_heads=2)
    assert again.paths.names == list(names)
    for path in model.paths:
        own, other = path.state_dict(), again.paths[path.spec.name].state_dict()
        assert all(torch.equal(other[name], tensor) for name, tensor in own.items())
        extra = other.keys() - own.keys()
        assert all(name.endswith("noise_weight") and not other[name].any() for name in extra)
        assert bool(extra) == (gate == "softmax" and path.spec.name in names[2:])
    notes = " ".join(report["notes"])
    assert "depth: the released code computes this stage with defects" in notes
    assert "point_cloud: the released code computes this stage with defects" in notes
    assert ("its gates have no noise" in notes) == (gate == "softmax")


def test_what_a_kill_has_left_beside_a_path_is_no_path(tmp_path):
    directory, _ = model_directory(tmp_path, own_specs("sight", "sound"))
    shutil.copytree(directory / "paths/sound", directory / "paths/.sound.old")
    report = export_directory(directory, tmp_path / "out")
    assert list(report["files"]) == ["sight", "sound"]


def test_an_epsilon_that_the_layout_cannot_say_is_noted(tmp_path):
    directory, _ = model_directory(tmp_path, own_specs("image", norm_eps=1e-6))
    report = export_directory(directory, tmp_path / "out")
    assert report["notes"] == ["image: the layout has no epsilon of the input norm (1e-06)"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate": "top_k"}, "'range' must have gate softmax in the released layout, got top_k"),
        ({"gate": None}, r"'range' must have gate softmax .* got None; it cannot be exp"),
        ({"in_adapter": None}, "'range' must have in_adapter identity .* got None"),
        ({"plain_sites": ()}, r"'range' must have plain_sites \['projector'\] .* got \[\]"),
        ({"sites": ("*query",)}, r"'sound' must have sites \['layer_0/.*got \['layer_0/cross_att"),
    ],
)
def test_a_path_that_the_layout_cannot_hold_is_refused(tmp_path, fields, message):
    directory, _ = model_directory(tmp_path, own_specs("sight", "sound", "range", **fields))
    with pytest.raises(PathError, match=message):
        export_directory(directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_predecessors_or_ranks_are_refused(tmp_path):
    specs = own_specs("sight", "sound", "range")
    fields = {"predecessors": (), "rank": 3}
    for field, value in fields.items():
        changed = PathSpec(**{**vars(specs[2]), field: value})
        directory, _ = model_directory(tmp_path / field, [*specs[:2], changed])
        with pytest.raises(PathError, match=rf"must have {field} .* in the released layout"):
            export_directory(directory, tmp_path / field / "out")


def test_directories_that_cannot_be_exported(tmp_path):
    with pytest.raises(PathError, match="must be a new directory, got one that exists"):
        export_directory(tmp_path, tmp_path)
    directory, _ = model_directory(tmp_path, own_specs("sight"), scale=0.5)
    with pytest.raises(PathError, match=r"must have a plain projector .*, got one scaled to 0\.5"):
        export_directory(directory, tmp_path / "out")
    about = directory / "base/base.json"
    about.write_text(
        json.dumps({**json.loads(about.read_text(encoding="utf-8")), "projector_scale": None}),
        encoding="utf-8",
    )
    shutil.rmtree(directory / "paths")
    with pytest.raises(PathError, match="must hold paths/, got none; give a run or an import"):
        export_directory(directory, tmp_path / "out")
    whole = about.read_text(encoding="utf-8")
    about.write_text(
        json.dumps({**json.loads(whole), "qformer": {"colour": "red"}}), encoding="utf-8"
    )
    with pytest.raises(PathError, match=r"base must hold a base .*, got TypeError"):
        export_directory(directory, tmp_path / "out")
    about.write_text("{}", encoding="utf-8")
    with pytest.raises(PathError, match=r"base must hold a base .*, got KeyError\("):
        export_directory(directory, tmp_path / "out")
    about.write_text(whole, encoding="utf-8")
    (directory / "base/connector.safetensors").write_bytes(b"short")
    with pytest.raises(PathError, match=r"base/connector\.safetensors must have sha256 .*damaged"):
        export_directory(directory, tmp_path / "out")
    (directory / "connectors/sight").mkdir(parents=True)
    with pytest.raises(PathError, match=r"must have one connector that all .*cannot be exported"):
        export_directory(directory, tmp_path / "out")


def test_a_path_with_a_projector_of_its_own_is_refused(tmp_path):
    directory, _ = model_directory(tmp_path, chain("sight", "sound", rank=0, own=("projector",)))
    with pytest.raises(PathError, match=r"'sight' must have own \[\] .*, got \['projector'\]; it"):
        export_directory(directory, tmp_path / "out")


def test_files_of_both_kinds_are_refused(exported, tmp_path):
    root, _, report, _ = exported
    file = tmp_path / "audio.safetensors"
    data = (root / "out/audio.safetensors").read_bytes()
    file.write_bytes(data.replace(b'"released_quirks":"true"', b'"released_quirks":"fals"'))
    with pytest.raises(PathError, match="must all be made with the same --quirks, got both"):
        import_files([root / "out" / report["files"]["video"], file], num_heads=SMALL_HEADS)


NAMES = st.lists(
    st.sampled_from(["video", "audio", "depth", "tilt", "zz_9", "keys", "state_dict"]),
    min_size=1,
    max_size=3,
    unique=True,
)


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_structure_comes_back(tmp_path_factory, data):
    """Any number of stages of any names, sizes and order: paths and files, bit by bit."""
    names = data.draw(NAMES)
    if data.draw(st.booleans()):
        names.append("pc")
    quirks, aliases = data.draw(st.booleans()), data.draw(st.booleans())
    every = data.draw(st.integers(1, 2))
    shape = QFormerConfig(
        dim=4 * data.draw(st.integers(1, 2)),
        num_layers=every,
        num_heads=2,
        hidden_dim=5,
        encoder_width=6,
        cross_attention_every=every,
        vocab_size=data.draw(st.sampled_from([None, 7])),
        max_positions=9 if data.draw(st.booleans()) else 512,
    )
    rank = data.draw(st.integers(1, 3))
    stages = [
        CheckpointStage(name, shape, llm_dim=7, num_queries=data.draw(st.integers(1, 3)),
              own_width=data.draw(st.sampled_from([3, 6])), position=position,
              num_adapters=len(names), num_in_adapters=len(names) - 1, rank=rank, quirks=quirks)
        for position, name in enumerate(names)
    ]  # fmt: skip
    root = tmp_path_factory.mktemp("any")
    files = [root / f"{name}.pth" for name in names]
    for stage, file in zip(stages, files, strict=True):
        torch.save(random_state(stage, aliases), file)
    imported = import_files(data.draw(st.permutations(files)), quirks=quirks, num_heads=2)
    write_import(imported, root / "in")
    report = export_directory(root / "in", root / "out")
    again = import_files([root / "out" / f for f in report["files"].values()], num_heads=2)
    assert_same(imported, again)
    write_import(again, root / "in2")
    for name in imported.paths.names:
        one, other = (describe_path(root / i / "paths" / name) for i in ("in", "in2"))
        assert one["content_hash"] == other["content_hash"]
    second = export_directory(root / "in2", root / "out2")
    for file in second["files"].values():
        assert sha256_file(root / "out" / file) == sha256_file(root / "out2" / file)
