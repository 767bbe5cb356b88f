"""Plug-in of pytest for a torchvision whose own operators do not load beside this build of torch.

``PYTHONPATH=... python -m pytest -p tests.torchvision_ops``. Processors resize by operators of
torch; those that are declared here are never run.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
