"""Pretrained bases, and the cache of fetched weights that they are read from."""

from pathweave.bases.fetch import check, fetch, ready_dir, weights_dir
from pathweave.bases.weights_manifest import (
    HubSource,
    Terms,
    Weights,
    WheelSource,
    find_weights,
    language_models,
    manifest,
)

__all__ = [
    "HubSource",
    "Terms",
    "Weights",
    "WheelSource",
    "check",
    "fetch",
    "find_weights",
    "language_models",
    "manifest",
    "ready_dir",
    "weights_dir",
]
