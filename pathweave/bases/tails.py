"""Tails: the frozen module of a vision LLM that maps its tower's features to its words' width.

A path whose features look like the tower's may end in it. It has to be a map of single tokens;
families whose connector merges neighbours, or looks a picture up in words, have none.
"""

from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

CONNECTOR = "model.multi_modal_projector"
TAILS = {
    "llava": CONNECTOR,
    "llava_onevision": CONNECTOR,
    "internvl": CONNECTOR,
    "paligemma": CONNECTOR,
    "idefics3": "model.connector.modality_projection",
    "smolvlm": "model.connector.modality_projection",
    "qwen2_5_vl": "model.visual.merger.mlp",
}


class Tail(NamedTuple):
    """A tail.

    Attributes:
        name: Where it is in the model.
        module: The module, from ``[..., width]`` to ``[..., width of the language model]``.
        width: Width of what it takes.
    """

    name: str
    module: nn.Module
    width: int


def find_tail(model: PreTrainedModel) -> Tail | None:
    """Return the tail of a vision LLM, or None for a family without one or an unknown one."""
    name = TAILS.get(model.config.model_type)
    if name is None:
        return None
    module = model.get_submodule(name)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
    return Tail(name, module, first.in_features)
