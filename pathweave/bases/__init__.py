"""Pretrained bases, and the cache of fetched weights that they are read from."""

from pathweave.bases.fetch import check, fetch, ready_dir, weights_dir
from pathweave.bases.weights_manifest import HubSource, Weights, WheelSource, find_weights, manifest

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
