import struct

import numpy as np
import pytest
import trimesh

from pathweave.decoders.points import Points
from pathweave.errors import MediaError
from tests.decoders.files import noise, npy, npz


def ball(num_points: int):
    points = np.random.default_rng(0).normal(size=(num_points, 3)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_shape_and_range():
    pixels = Points(views=3, size=64)(npy(ball(1024)), "a").pixels
    assert pixels.shape == (3, 64, 64, 3)
    assert set(np.unique(pixels[pixels > 0])) <= set(range(64, 256))
    assert (pixels[0] != pixels[1]).any()
    assert (pixels[:, 0, 0] == 0).all()


def test_a_thousand_points_give_a_closed_surface():
    pixels = Points()(npy(ball(1024)), "a").pixels[0, :, :, 0]
    rows, columns = np.mgrid[:96, :96] - 47.5
    is_inside = np.hypot(rows, columns) < 42
    assert (pixels[is_inside] > 0).mean() > 0.95


def test_unit_and_place_do_not_matter():
    points = noise((500, 3))
    moved = (1000 * points - np.array([7e4, 2e4, -5e4])).astype(np.float64)
    difference = Points()(npy(points), "a").pixels != Points()(npy(moved), "a").pixels
    assert difference.mean() < 0.01


def test_front_and_up():
    # A tall pole whose top is towards the viewer of the first picture.
    pole = np.stack([np.zeros(100), np.linspace(-1, 1, 100), np.linspace(0, 0.5, 100)], axis=1)
    grey = Points()(npy(pole), "a").pixels[0, :, :, 0]
    rows = np.flatnonzero(grey.max(axis=1))
    assert rows[0] < 10
    assert rows[-1] > 85
    assert grey[rows[0]].max() > grey[rows[-1]].max()


def test_up_z():
    points = noise((100, 3))
    standing = points[:, [0, 2, 1]] * np.array([1, -1, 1], dtype=np.float32)
    upright = Points(up="z")(npy(standing), "a").pixels
    assert (upright == Points()(npy(points), "a").pixels).all()


@pytest.mark.parametrize("size", [8, 96])
def test_one_point_is_a_bright_spot_in_the_middle(size):
    pixels = Points(size=size)(npy(np.array([[3.0, 4.0, 5.0]])), "a").pixels
    assert pixels[0, size // 2, size // 2, 0] == 255
    assert (pixels > 0).mean() < 0.2


def test_a_million_points_are_always_the_same():
    data = npy(noise((1_000_000, 3)))
    first = Points(views=4)(data, "a").pixels
    assert (first == Points(views=4)(data, "a").pixels).all()


def test_extra_columns_are_ignored():
    points = noise((50, 3))
    coloured = np.concatenate([points, np.full((50, 3), np.nan, dtype=np.float32)], axis=1)
    assert (Points()(npy(coloured), "a").pixels == Points()(npy(points), "a").pixels).all()


@pytest.mark.parametrize("arrays", ["points", "pos", "whatever"])
def test_npz(arrays):
    pixels = Points()(npz(**{arrays: noise((50, 3))}), "a").pixels
    assert (pixels == Points()(npy(noise((50, 3))), "a").pixels).all()


def test_npz_without_coordinates():
    with pytest.raises(
        MediaError, match=r"must hold an array named points, xyz, .* got \['a\.npy'"
    ):
        Points()(npz(a=noise((5, 3)), b=noise((5, 3))), "x.npz")


def test_npz_truncated():
    with pytest.raises(MediaError, match=r"must be a whole cloud .*, got a ZIP archive"):
        Points()(npz(points=noise((500, 3)))[:3000], "x.npz")


@pytest.mark.parametrize("kind", ["ply", "obj", "off", "glb"])
def test_meshes(kind):
    data = trimesh.creation.box((1, 2, 1)).export(file_type=kind)
    data = data.encode() if isinstance(data, str) else data
    pixels = Points(max_points=2_000)(data, f"a.{kind}").pixels
    assert 0.1 < (pixels > 0).mean() < 0.6
    assert (pixels == Points(max_points=2_000)(data, f"a.{kind}").pixels).all()


def test_ply_without_faces():
    data = trimesh.PointCloud(ball(200)).export(file_type="ply")
    assert (Points()(data, "a.ply").pixels > 0).any()


def test_few_bad_rows_are_dropped():
    points = noise((1000, 3))
    points[:10] = np.nan
    expected = Points()(npy(points[10:]), "a").pixels
    assert (Points()(npy(points), "a").pixels == expected).all()


def test_many_bad_rows_are_refused():
    points = noise((1000, 3))
    points[:11, 1] = np.inf
    with pytest.raises(MediaError, match=r"finite .* 99 % of its points, got 11 bad of 1,000;"):
        Points()(npy(points), "x")


def test_one_bad_point():
    with pytest.raises(MediaError, match=r"got 1 bad of 1;"):
        Points()(npy(np.full((1, 3), np.nan)), "x")


def test_huge_coordinates():
    points = (noise((100, 3)) - 0.5) * np.float64(6e38)
    assert (Points()(npy(points), "a").pixels > 0).any()


@pytest.mark.parametrize("empty", [npy(np.zeros((0, 3))), npz(points=np.zeros((0, 3)))])
def test_empty(empty):
    with pytest.raises(MediaError, match=r"x must have at least one point, got none; leave it out"):
        Points()(empty, "x")


@pytest.mark.parametrize("shape", [(5,), (5, 2), (1, 5, 3)])
def test_wrong_shape(shape):
    with pytest.raises(MediaError, match=r"must have the shape \[points, 3 or more\], got \["):
        Points()(npy(np.ones(shape)), "x")


@pytest.mark.parametrize("data", [b"", b"hello, I am a cloud", b"\xff\xd8\xff\xe0 jpeg"])
def test_mislabelled(data):
    with pytest.raises(
        MediaError, match=r"x\.ply must be a whole cloud or mesh .* got .*; replace"
    ):
        Points()(data, "x.ply")


@pytest.mark.parametrize("kind", ["ply", "glb", "off"])
def test_truncated_mesh(kind):
    data = trimesh.creation.icosphere(subdivisions=2).export(file_type=kind)
    data = data.encode() if isinstance(data, str) else data
    with pytest.raises(MediaError, match=r"x must be a whole (cloud|PLY)"):
        Points()(data[: len(data) // 2], "x")


def test_empty_mesh():
    with pytest.raises(MediaError, match=r"must (have at least one point|be a whole cloud)"):
        Points()(b"v nonsense\n", "x.obj")


def spread(points):
    return np.linalg.norm(points, axis=1).max()


@pytest.mark.parametrize("num_points", [1, 5, 64, 65, 1000])
def test_a_cloud_of_exactly_so_many_points(num_points):
    points = 1000 * noise((num_points, 3)) + 50
    values = Points(count=64)(npy(points), "a").values
    assert values.shape == (64, 3)
    assert spread(values) <= 1 + 1e-6
    assert len(np.unique(values, axis=0)) == min(num_points, 64)
    if 1 < num_points <= 64:
        centred = points - points.mean(axis=0)
        np.testing.assert_allclose(values[:num_points], centred / spread(centred), atol=1e-5)


def test_fewer_points_are_repeated_in_turn():
    values = Points(count=7)(npy(noise((3, 3))), "a").values
    assert (values == values[[0, 1, 2, 0, 1, 2, 0]]).all()


def test_one_point_is_the_origin():
    assert not Points(count=3)(npy(np.array([[3.0, 4.0, 5.0]])), "a").values.any()


def test_points_of_a_larger_cloud_cover_it_evenly():
    # Nine tenths of the points are in one place.
    points = np.concatenate([ball(100), 0.001 * ball(900)])
    values = Points(count=100)(npy(points), "a").values
    assert (np.linalg.norm(values, axis=1) > 0.5).sum() > 95
    assert (values == Points(count=100)(npy(points), "a").values).all()


def test_so_many_points_whatever_the_largest_number():
    assert Points(count=200, max_points=50)(npy(noise((300, 3))), "a").values.shape == (200, 3)
    assert Points(count=20, max_points=50)(npy(noise((300, 3))), "a").values.shape == (20, 3)


def test_up_z_of_a_cloud():
    points = noise((10, 3))
    standing = points[:, [0, 2, 1]] * np.array([1, -1, 1], dtype=np.float32)
    upright = Points(up="z", count=10)(npy(standing), "a").values
    np.testing.assert_allclose(upright, Points(count=10)(npy(points), "a").values, atol=1e-6)


def test_a_cloud_of_a_mesh():
    data = trimesh.creation.box((1, 2, 1)).export(file_type="ply")
    values = Points(count=256, max_points=2_000)(data, "a.ply").values
    assert values.shape == (256, 3)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.1)


def test_bad_rows_and_huge_coordinates_of_a_cloud():
    points = (noise((1000, 3)) - 0.5) * np.float64(6e38)
    points[:10] = np.nan
    values = Points(count=64)(npy(points), "a").values
    assert np.isfinite(values).all()
    assert spread(values) > 0.5
    points[:11] = np.nan
    with pytest.raises(MediaError, match="got 11 bad of 1,000"):
        Points(count=64)(npy(points), "a")


def test_the_fingerprint_of_a_cloud():
    prints = [Points(), Points(count=64), Points(count=65), Points(count=64, up="z")]
    assert len({decoder.fingerprint for decoder in prints}) == 4
    # Features that were cached for pictures stay valid.
    assert Points().fingerprint == "points-2 views=1 size=96 max_points=50000 up=y"
    assert Points(count=64, size=8, views=2).fingerprint == Points(count=64).fingerprint


@pytest.mark.parametrize("offset", [(5e5, 4e6, 100.0), (0.0, -1e9, 1e7), (1e12, 1e12, 1e12)])
@pytest.mark.parametrize("count", [None, 64])
@pytest.mark.parametrize("kind", ["npy", "obj", "ply"])
def test_a_place_far_from_the_origin_does_not_matter(offset, count, kind):
    points = np.round(ball(300).astype(np.float64) * 2**9) / 2**9
    files = []
    for cloud in (points, points + np.array(offset)):
        rows = [" ".join(repr(float(number)) for number in row) for row in cloud]
        header = (
            "ply\nformat ascii 1.0\nelement vertex 300\nproperty double x\nproperty double y\n"
            "property double z\nend_header\n"
        )
        files.append(
            {
                "npy": npy(cloud),
                "obj": "".join(f"v {row}\n" for row in rows).encode(),
                "ply": (header + "\n".join(rows) + "\n").encode(),
            }[kind]
        )
    near, far = (Points(count=count)(data, "a") for data in files)
    if count:
        np.testing.assert_allclose(near.values, far.values, atol=1e-3)
    else:
        assert (near.pixels != far.pixels).mean() < 0.02


@pytest.mark.parametrize("shape", [(3, 2000), (6, 50), (3, 13), (62, 1000)])
def test_a_cloud_on_its_side_is_refused(shape):
    with pytest.raises(MediaError, match=rf"x must have a row for each point, got {shape[0]} rows"):
        Points()(npy(noise(shape)), "x")


@pytest.mark.parametrize("shape", [(3, 3), (1, 12), (5, 6), (40, 100)])
def test_few_points_with_many_columns_are_read(shape):
    assert Points(count=4)(npy(noise(shape)), "x").values.shape == (4, 3)


def test_names_of_arrays_are_taken_in_order_of_preference():
    first, second = noise((50, 3)), noise((50, 3), seed=1)
    expected = Points()(npy(first), "a").pixels
    for arrays in ({"points": first, "xyz": second}, {"xyz": second, "points": first}):
        assert (Points()(npz(**arrays), "a").pixels == expected).all()


def test_a_number_of_points_under_a_name_of_arrays_is_no_cloud():
    data = npz(points=np.array(50), xyz=noise((50, 3)))
    assert (Points()(data, "a").pixels == Points()(npy(noise((50, 3))), "a").pixels).all()


@pytest.mark.parametrize(("size", "most"), [(10_000, 8_192), (8_193, 8_192), (500, 499)])
def test_a_cloud_is_thinned_to_different_points(size, most):
    values = Points(count=most, max_points=most)(npy(noise((size, 3))), "a").values
    assert len(np.unique(values, axis=0)) == most


PLY = """ply
format binary_{order}_endian 1.0
element vertex {points}
property float x
property float y
property float z
{vertex_list}end_header
"""


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("sizes", [(3, 4), (4, 3), (4, 3, 5), (3, 3)])
def test_binary_polygons_of_several_sizes_are_refused_with_a_remedy(order, sizes):
    head = PLY.format(order=order, points=5, vertex_list="").replace(
        "end_header",
        f"element face {len(sizes)}\nproperty list uchar int vertex_indices\nend_header",
    )
    sign = "<" if order == "little" else ">"
    data = head.encode() + noise((5, 3)).astype(f"{sign}f4").tobytes()
    data += b"".join(struct.pack(f"{sign}B{size}i", size, *range(size)) for size in sizes)
    if len(set(sizes)) == 1:
        assert Points(count=9)(data, "x").values.shape == (9, 3)
        return
    with pytest.raises(MediaError, match="again, triangulated or as ASCII if polygons or lists"):
        Points()(data, "x")


@pytest.mark.parametrize("sizes", [(2, 1, 3), (2, 2, 2)])
def test_binary_vertices_with_lists_are_read_or_refused(sizes):
    head = PLY.format(order="little", points=3, vertex_list="property list uchar int views\n")
    points = noise((3, 3))
    data = head.encode() + b"".join(
        point.tobytes() + struct.pack(f"<B{size}i", size, *range(size))
        for point, size in zip(points, sizes, strict=True)
    )
    if len(set(sizes)) == 1:
        expected = Points(count=3)(npy(points), "x").values
        np.testing.assert_allclose(Points(count=3)(data, "x").values, expected, atol=1e-5)
        return
    with pytest.raises(MediaError, match=r"lists differ in length.*ASCII"):
        Points()(data, "x")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" ", "\t"),
        (" ", "  "),
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("\nv", "\n \tv"),
        (" 0.5 ", " \\\n 0.5 "),
        ("\nv", " # a corner\nv"),
        ("v 0.25 0.5", "\ufeffv 0.25 0.5"),
    ],
)
@pytest.mark.parametrize("faces", ["", "f 1 2 3\nf 2 3 4\n"])
def test_obj_is_read_however_it_is_laid_out(old, new, faces):
    text = "v 0.25 0.5 0\nv 1 0.5 0\nv 1 1 0.125\nv 0 0.5 1\n" + faces
    assert old in text
    expected = Points(count=16, max_points=500)(text.encode(), "a").values
    changed = Points(count=16, max_points=500)(
        text.replace(old, new, 1 if old[0] == "v" else -1).encode(), "a"
    )
    np.testing.assert_array_equal(changed.values, expected)
    assert len(np.unique(expected, axis=0)) == (16 if faces else 4)


def test_the_cloud_is_upright_and_thinned_to_the_same_points():
    points = np.arange(30.0, dtype=np.float32).reshape(10, 3)
    turned = Points(up="z").cloud(npy(points))
    assert turned[0].tolist() == [0, 2, -1]
    few = Points(max_points=4).cloud(npy(points))
    assert few.shape == (4, 3)
    assert (few == Points(max_points=4).cloud(npy(points))).all()
