"""Groups of neighbouring points, in plain torch.

Axes: ``batch`` clouds of ``points`` with three coordinates; ``centres`` points that a group is
made around; ``nearest`` points of a group.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# Distances held at once for one cloud: 16 MiB.
_DISTANCES = 1 << 22


def farthest_points(
    cloud: Float32[Tensor, "batch points 3"], count: int, start: int = 0
) -> Int64[Tensor, "batch count"]:
    """Return indices of points that cover a cloud: each is farthest from all that precede it.

    Needs memory for one distance per point. Where there are fewer different points than ``count``,
    some are taken again.

    Args:
        cloud: Coordinates.
        count: How many points are chosen.
        start: Index of the first one.

    Example:
        >>> line = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0]]])
        >>> farthest_points(line, 3).tolist()
        [[0, 2, 1]]
    """
    # All x, then all y, then all z: four times as fast as point by point.
    axes = cloud.permute(2, 0, 1).contiguous()
    rows = torch.arange(len(cloud), device=cloud.device)
    chosen = torch.empty(len(cloud), count, dtype=torch.long, device=cloud.device)
    distance = torch.full(cloud.shape[:2], torch.inf, device=cloud.device)
    latest = torch.full_like(rows, start)
    for i in range(count):
        chosen[:, i] = latest
        to_latest = (axes - axes[:, rows, latest].unsqueeze(2)).square_().sum(0)
        torch.minimum(distance, to_latest, out=distance)
        latest = distance.argmax(1)
    return chosen


def nearest_points(
    cloud: Float32[Tensor, "batch points 3"],
    centres: Float32[Tensor, "batch centres 3"],
    count: int,
) -> Int64[Tensor, "batch centres count"]:
    """Return the indices of the points nearest to each centre, in no particular order.

    Args:
        cloud: Coordinates.
        centres: Where to look from.
        count: Points per centre; at most as many as there are.
    """
    chunk = max(1, _DISTANCES // (len(cloud) * cloud.shape[1]))
    indices = [
        # The fast form of the distance, by a matrix product, confuses points close together.
        torch.cdist(part, cloud, compute_mode="donot_use_mm_for_euclid_dist")
        .topk(count, largest=False, sorted=False)
        .indices
        for part in centres.split(chunk, dim=1)
    ]
    return torch.cat(indices, dim=1)


def at_indices(
    cloud: Float32[Tensor, "batch points 3"], indices: Int64[Tensor, "batch ..."]
) -> Float32[Tensor, "batch ... 3"]:
    """Return the points at ``indices``, each within its own cloud."""
    rows = torch.arange(len(cloud), device=cloud.device)
    return cloud[rows.view(-1, *[1] * (indices.ndim - 1)), indices]
