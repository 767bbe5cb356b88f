"""Adapter-in-Adapter as tensor maths: no files, no configuration, no names of modalities.

Axis names in shapes: ``batch tokens dim rank experts queries heads width text out``. ``dim`` is
the width of the Q-Former, ``width`` that of encoder features, ``out`` a changed width.
"""

from pathweave.nn.adapter import Adapter, InAdapter
from pathweave.nn.attention import Attention
from pathweave.nn.gate import Gate
from pathweave.nn.projector import Projector
from pathweave.nn.qformer import QFormer, QFormerConfig
from pathweave.nn.woven import (
    Experts,
    Mixture,
    Route,
    WovenLinear,
    woven_sites,
)

__all__ = [
    "Adapter",
    "Attention",
    "Experts",
    "Gate",
    "InAdapter",
    "Mixture",
    "Projector",
    "QFormer",
    "QFormerConfig",
    "Route",
    "WovenLinear",
    "woven_sites",
]
