import numpy as np
import pytest
import torch

from pathweave.decoders import build_decoder
from pathweave.encoders import Encoder, build_encoder, point_bert
from pathweave.encoders.media import Array
from pathweave.encoders.point_bert import PointBert, PointBertShape, read_point_bert
from pathweave.errors import FetchError, MediaError, RecipeError
from tests.decoders.files import npy
from tests.encoders.golden import arrays, expanded, parameters, real, write_ulip

NAME = "pointbert_ULIP-2.pt"
TINY = PointBertShape(8, 4, 16, 24, 2, 3, 20)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_ulip(tmp_path_factory.mktemp("ulip") / NAME)


@pytest.fixture
def tiny(monkeypatch):
    """Make files be of the stored size, which no such file says."""
    monkeypatch.setattr(point_bert, "SHAPE", TINY)


@pytest.fixture
def encoder(file, tiny):
    return PointBert(file.parent)


def cloud(points, seed=0):
    return Array(np.random.default_rng(seed).normal(size=(points, 3)).astype(np.float32))


@pytest.mark.parametrize(("case", "starts"), [("start0", [0, 0, 0]), ("startrand", [11, 30, 3])])
def test_the_authors_network_gives_the_same_vectors(file, case, starts):
    stored, network = arrays("ulip_pointbert"), read_point_bert(file, TINY)
    for row, start in enumerate(starts):
        with torch.no_grad():
            found = network(stored["in/points"][row : row + 1], start)[0]
        torch.testing.assert_close(found, stored[f"out/{case}/embedding"][row], atol=1e-5, rtol=0)


@pytest.mark.usefixtures("tiny")
def test_the_encoder_gives_the_same_vectors(file):
    stored = arrays("ulip_pointbert")
    clouds = [Array(points.numpy()) for points in stored["in/points"]]
    found = torch.cat(PointBert(file)(clouds))
    torch.testing.assert_close(found[:, 0], stored["out/start0/embedding"], atol=1e-5, rtol=0)
    [other] = PointBert(file, start=30)(clouds[1:2])
    torch.testing.assert_close(other[0, 0], stored["out/startrand/embedding"][1], atol=1e-5, rtol=0)


def test_the_order_of_the_other_points_does_not_matter(encoder):
    points = cloud(64).values
    mixed = np.concatenate([points[:1], np.random.default_rng(1).permutation(points[1:])])
    [features], [again] = encoder([Array(points)]), encoder([Array(mixed)])
    torch.testing.assert_close(features, again, atol=1e-5, rtol=1e-5)


def test_clouds_of_any_size_give_one_token_each(encoder):
    assert isinstance(encoder, Encoder)
    media = [*(cloud(40, seed) for seed in range(10)), cloud(64), cloud(4)]
    features = encoder(media)
    assert [tuple(f.shape) for f in features] == [(1, 1, 20)] * 12
    for medium, expected in zip(media, features, strict=True):
        torch.testing.assert_close(encoder([medium])[0], expected, atol=1e-5, rtol=1e-5)
    assert encoder([]) == []


@pytest.mark.usefixtures("tiny")
def test_every_setting_and_the_weights_are_in_the_fingerprint(file, tmp_path):
    other = write_ulip(tmp_path / NAME, pc_projection=torch.ones(48, 20))
    prints = [PointBert(file).fingerprint, PointBert(file, 1).fingerprint]
    assert len({*prints, PointBert(other).fingerprint}) == 3
    assert prints[0].startswith("ulip2 start=0 weights=")
    assert build_encoder("ulip2", directory=str(file.parent)).fingerprint == prints[0]


@pytest.mark.parametrize("has_counters", [True, False])
@pytest.mark.parametrize("has_prefix", [True, False])
def test_every_tensor_of_the_full_size_network_has_a_place(tmp_path, has_counters, has_prefix):
    listed = real("ulip2_pointbert")
    unused = listed["checkpoint_loading"]["unused_tower_patterns"]["patterns"]
    towers = {
        name.replace("{i}", str(i)): about["shape"]
        for name, about in unused.items()
        for i in (range(12) if "{i}" in name else [0])
    }
    assert len(towers) == 301
    shapes = listed["state_dict"] | towers
    if not has_counters:
        shapes = {n: s for n, s in shapes.items() if not n.endswith("num_batches_tracked")}
    prefix = "module." if has_prefix else ""
    state = {f"{prefix}{name}": tensor for name, tensor in expanded(shapes).items()}
    torch.save({"state_dict": state, "optimizer": {"step": 1}}, tmp_path / NAME)
    network = read_point_bert(tmp_path / NAME)
    assert sum(v.numel() for v in network.state_dict().values()) == listed["n_elements"]


def test_the_decoder_makes_clouds_the_encoder_reads(encoder):
    decoder = build_decoder("points", count=64)
    clouds = [np.ones((1, 3)), np.random.default_rng(0).normal(size=(500, 3)) * 1e4]
    media = [decoder(npy(points), "x") for points in clouds]
    features = encoder(media)
    assert [tuple(f.shape) for f in features] == [(1, 1, 20)] * 2
    assert all(f.isfinite().all() for f in features)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((1, 3)), "clouds must have 4 points, got 1; set the decoder to .*count: 8192"),
        (np.ones((9, 6)), "clouds must have 3 columns, got 6; set the decoder"),
        (np.full((9, 3), np.nan), "clouds must be finite, got NaN or infinity; set the decoder"),
        (np.full((9, 3), -np.inf), "clouds must be finite, got NaN or infinity; set the decoder"),
    ],
)
def test_arrays_that_are_no_clouds(encoder, values, message):
    with pytest.raises(MediaError, match=message):
        encoder([cloud(9), Array(values.astype(np.float32))])


@pytest.mark.usefixtures("tiny")
def test_the_start_must_be_a_point(file):
    with pytest.raises(RecipeError, match="start must be at least 0, got -1"):
        PointBert(file, start=-1)
    with pytest.raises(MediaError, match="clouds must have 10 points, got 9"):
        PointBert(file, start=9)([cloud(9)])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        # The later checkpoint, which reads colours too.
        (
            {"point_encoder.encoder.first_conv.0.weight": torch.ones(128, 6, 1)},
            r"hold encoder\.first_conv\.0\.weight of the shape \[128, 3, 1\], got \[128, 6, 1\]",
        ),
        ({"pc_projection": torch.ones(48, 1280)}, r"of the shape \[48, 20\], got \[48, 1280\]"),
        ({"point_encoder.norm.bias": None}, r"got no norm\.bias"),
        (
            {"point_encoder.blocks.blocks.2.norm1.bias": torch.ones(24)},
            r"got blocks\.2\.norm1.* as",
        ),
        ({"open_clip_model.scale": torch.ones(1)}, r"got open_clip_model\.scale as well"),
    ],
)
def test_another_model_is_refused(tmp_path, change, message):
    state = {k: v for k, v in (parameters("ulip_pointbert") | change).items() if v is not None}
    torch.save({"state_dict": state}, tmp_path / NAME)
    with pytest.raises(FetchError, match=message + r".*; download pointbert_ULIP-2\.pt from https"):
        PointBert(tmp_path)


def test_a_checkpoint_of_another_width(file):
    with pytest.raises(FetchError, match=r"got no blocks\.10\.attn\.proj\.bias"):
        PointBert(file)


def test_a_missing_file_says_what_to_put_where(tmp_path):
    message = (
        r"got nothing; download pointbert_ULIP-2\.pt from https://storage\.googleapis\.com/sfr-"
    )
    with pytest.raises(FetchError, match=message):
        PointBert(tmp_path / "nowhere.pt")
