import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.encoders import point_groups
from pathweave.encoders.point_groups import at_indices, farthest_points, nearest_points
from tests.encoders.golden import arrays


@pytest.mark.parametrize(("case", "starts"), [("start0", [0, 0, 0]), ("startrand", [11, 30, 3])])
def test_the_authors_choose_the_same_centres(case, starts):
    stored = arrays("ulip_pointbert")
    for row, start in enumerate(starts):
        cloud = stored["in/points"][row : row + 1]
        chosen = farthest_points(cloud, 8, start)
        assert torch.equal(chosen[0], stored[f"out/{case}/fps_idx"][row])
        assert torch.equal(at_indices(cloud, chosen)[0], stored[f"out/{case}/center"][row])


@pytest.mark.parametrize("case", ["start0", "startrand"])
def test_the_authors_make_the_same_groups(case):
    stored = arrays("ulip_pointbert")
    found = nearest_points(stored["in/points"], stored[f"out/{case}/center"], 4)
    assert torch.equal(found.sort(-1).values, stored[f"out/{case}/knn_idx"].sort(-1).values)


def cloud_of(points, seed, batch=1):
    return torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 39), st.integers(0, 1000))
def test_each_centre_is_farthest_from_those_before_it(points, count, start, seed):
    [cloud] = cloud_of(points, seed)
    start %= points
    [chosen] = farthest_points(cloud[None], count, start).tolist()
    assert chosen[0] == start
    for i in range(1, count):
        to_chosen = (cloud[:, None] - cloud[chosen[:i]]).square().sum(2).amin(1)
        assert to_chosen[chosen[i]] == pytest.approx(to_chosen.max().item(), rel=1e-5)
    assert len(set(chosen)) == min(points, count)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7), st.data())
def test_groups_are_the_nearest_points_whatever_the_chunk(points, count, centres, data):
    count = min(points, count)
    cloud, around = cloud_of(points, points, batch=2), cloud_of(centres, centres, batch=2)
    before = point_groups._DISTANCES
    point_groups._DISTANCES = data.draw(st.sampled_from([1, points * 4, before]))
    try:
        found = nearest_points(cloud, around, count)
    finally:
        point_groups._DISTANCES = before
    distances = (around[:, :, None] - cloud[:, None]).norm(dim=3)
    expected = distances.sort(-1).values[..., :count]
    torch.testing.assert_close(distances.gather(2, found).sort(-1).values, expected)
    assert all(len(set(group.tolist())) == count for group in found.flatten(0, 1))


def test_near_points_far_from_the_origin_are_told_apart():
    line = torch.tensor([[[1000.0, 0, 0], [1000.25, 0, 0], [1000.5, 0, 0]]])
    assert nearest_points(line, line[:, 2:], 2).sort(-1).values.tolist() == [[[1, 2]]]
