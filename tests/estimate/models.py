"""Tiny real models whose cost is estimated and measured."""

from dataclasses import replace

from pathweave.model.base import freeze
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave
from pathweave.nn import Projector, QFormer
from tests.tiny import LLM_DIM, chain, randomise, tiny_base

TEXT = "What is it, and of which colour?"  # a token a letter
WIDTH = 60
QUERIES = 3


def model_of(
    gate: str | None = "softmax", text: bool = True, dim: int = 64, connector: bool = False
) -> tuple[PathWeave, ModalPath]:
    """A model of four paths, and the one that is trained: the newest, or the connector's own."""
    base = tiny_base(text=text)
    shape = replace(base.qformer.shape, dim=dim, num_heads=4, hidden_dim=4 * dim, encoder_width=72)
    base.qformer, base.projector = QFormer(shape), Projector(dim, LLM_DIM)
    model = PathWeave(base)
    for spec in chain("first", "second", "third", "fourth", gate=gate):
        randomise(model.paths.expand(replace(spec, encoder_width=WIDTH)))
    freeze(model)
    path = model.paths["first" if connector else "fourth"]
    path.requires_grad_(True)
    if connector:
        model.qformer.requires_grad_(True)
        model.projector.requires_grad_(True)
    model.train()
    return model, path
