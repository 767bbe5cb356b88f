"""Names of Q-Former tensors in the layouts in which they are published, and ours.

BERT and LAVIS write ``encoder.layer.0.attention.self.query.weight``, transformers
``encoder.layer.0.attention.attention.query.weight``; we write
``layers.0.self_attention.query.host.weight``.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_PARTS = {
    **{
        f"{theirs}.{part}": f"{ours}.{place}"
        for theirs, ours in (("attention", "self_attention"), ("crossattention", "cross_attention"))
        for part, place in (
            ("self.query", "query.host"),
            ("self.key", "key.host"),
            ("self.value", "value.host"),
            ("output.dense", "output.host"),
            ("output.LayerNorm", "norm"),
        )
    },
    **{
        f"{theirs}{end}.{part}": f"{ours}_ffn.{place}"
        for end, ours in (("", "text"), ("_query", "query"))
        for theirs, part, place in (
            ("intermediate", "dense", "expand"),
            ("output", "dense", "contract"),
            ("output", "LayerNorm", "norm"),
        )
    },
}
_EMBEDDINGS = {"word_embeddings": "words", "position_embeddings": "positions", "LayerNorm": "norm"}
_THEIRS = {ours: theirs for theirs, ours in (_PARTS | _EMBEDDINGS).items()}
_NAME = re.compile(r"(?:bert\.)?(?:encoder\.layer\.(\d+)\.|(?:embeddings\.)?)(.+)\.(weight|bias)")
_OUR_NAME = re.compile(r"(?:layers\.(\d+)\.)?(.+)\.(weight|bias)")


def our_name(name: str) -> str | None:
    """Return our name of a published Q-Former tensor, or None if it is no Q-Former weight.

    Example:
        >>> our_name("bert.encoder.layer.3.output_query.LayerNorm.bias")
        'layers.3.query_ffn.norm.bias'
    """
    if not (match := _NAME.fullmatch(name)):
        return None
    layer, part, kind = match.groups()
    if layer is None:
        ours = _EMBEDDINGS.get(part.replace("layernorm", "LayerNorm"))
        return ours and f"{ours}.{kind}"
    ours = _PARTS.get(part.replace("attention.attention.", "attention.self."))
    return ours and f"layers.{layer}.{ours}.{kind}"


def lavis_name(ours: str) -> str:
    """Return LAVIS's name of a Q-Former weight, the inverse of ``our_name``.

    Example:
        >>> lavis_name("layers.3.query_ffn.norm.bias")
        'encoder.layer.3.output_query.LayerNorm.bias'
    """
    match = _OUR_NAME.fullmatch(ours)
    assert match is not None  # a name of a weight of ours
    layer, part, kind = match.groups()
    place = "embeddings" if layer is None else f"encoder.layer.{layer}"
    return f"{place}.{_THEIRS[part]}.{kind}"


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the Q-Former weights among ``state`` under our names; other tensors are left out."""
    return {ours: tensor for name, tensor in state.items() if (ours := our_name(name))}
