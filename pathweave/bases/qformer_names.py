"""Names of Q-Former tensors in the layouts in which they are published, and ours.

BERT and LAVIS write ``encoder.layer.0.attention.self.query.weight``, transformers
``encoder.layer.0.attention.attention.query.weight``; we write
``layers.0.self_attention.query.host.weight``.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_BLOCKS = {"attention": "self_attention", "crossattention": "cross_attention"}
_FFN = {
    "intermediate": "text_ffn.expand",
    "intermediate_query": "query_ffn.expand",
    "output": "text_ffn.contract",
    "output_query": "query_ffn.contract",
}
_EMBEDDINGS = {
    "word_embeddings": "words",
    "position_embeddings": "positions",
    "LayerNorm": "norm",
    "layernorm": "norm",
}
_ATTENTION = re.compile(
    r"encoder\.layer\.(\d+)\.(attention|crossattention)\."
    r"(?:(?:self|attention)\.(query|key|value)|output\.(dense|LayerNorm))\.(weight|bias)"
)
_FEED_FORWARD = re.compile(
    r"encoder\.layer\.(\d+)\.(intermediate|intermediate_query|output|output_query)\."
    r"(dense|LayerNorm)\.(weight|bias)"
)
_EMBEDDING = re.compile(
    r"(?:embeddings\.)?(word_embeddings|position_embeddings|LayerNorm|layernorm)\.(weight|bias)"
)


def our_name(name: str) -> str | None:
    """Return our name of a published Q-Former tensor, or None if it is no Q-Former weight.

    Example:
        >>> our_name("bert.encoder.layer.3.output_query.LayerNorm.bias")
        'layers.3.query_ffn.norm.bias'
    """
    name = name.removeprefix("bert.")
    if match := _ATTENTION.fullmatch(name):
        layer, block, projection, part, kind = match.groups()
        place = "norm" if part == "LayerNorm" else f"{projection or 'output'}.host"
        return f"layers.{layer}.{_BLOCKS[block]}.{place}.{kind}"
    if match := _FEED_FORWARD.fullmatch(name):
        layer, block, part, kind = match.groups()
        place = _FFN[block]
        if part == "LayerNorm":
            place = f"{place.split('.')[0]}.norm"
        return f"layers.{layer}.{place}.{kind}"
    if match := _EMBEDDING.fullmatch(name):
        part, kind = match.groups()
        return f"{_EMBEDDINGS[part]}.{kind}"
    return None


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the Q-Former weights among ``state`` under our names; other tensors are left out."""
    return {ours: tensor for name, tensor in state.items() if (ours := our_name(name))}
