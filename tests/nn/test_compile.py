"""The connector as one graph; run with ``JAXTYPING_DISABLE=1 python -m pytest -m unchecked``."""

from dataclasses import replace

import pytest
import torch

from pathweave.model.paths import Paths, PathSpec
from pathweave.nn import Projector, QFormer, QFormerConfig, Route, woven_sites
from tests.tiny import randomise

pytestmark = pytest.mark.unchecked

SHAPE = QFormerConfig(
    dim=8, num_layers=1, num_heads=2, hidden_dim=8, encoder_width=6, vocab_size=20
)
SOUND = PathSpec("sound", encoder_width=6, num_queries=2, rank=2)


def connector(gate):
    torch.manual_seed(0)
    qformer, projector = QFormer(SHAPE).eval(), Projector(8, 16, scale=1.0).eval()
    layers = woven_sites(qformer) | woven_sites(projector)
    hosts = {name: (m.host.in_features, m.host.out_features) for name, m in layers.items()}
    paths = Paths(8, 6, hosts)
    randomise(paths.expand(SOUND))
    randomise(paths.expand(replace(SOUND, name="range", predecessors=("sound",), gate=gate)))
    return qformer, projector, paths.eval()


@torch.no_grad()
def test_a_mixed_batch_compiles_without_graph_breaks():
    qformer, projector, paths = connector("softmax")
    route = paths.route(["sound", "sound", "range"])
    feature_mask = torch.arange(5) < torch.tensor([[5], [4], [2]])
    text_mask = torch.arange(4) < torch.tensor([[4], [1], [3]])

    def connect(queries, features, text):
        rows = qformer(queries, features, route, feature_mask, text, text_mask)
        return projector(rows, route)

    given = (torch.randn(3, 2, 8), torch.randn(3, 5, 6), torch.randint(20, (3, 4)))
    compiled = torch.compile(connect, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), connect(*given), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("gate", ["noisy_softmax", "top_k", None])
def test_every_kind_of_gate_compiles(gate):
    _, projector, paths = connector(gate)
    route = Route(((paths.mixtures("sound"), 1), (paths.mixtures("range"), 2)))
    x = torch.randn(3, 2, 8)
    compiled = torch.compile(lambda x: projector(x, route), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), projector(x, route), atol=1e-5, rtol=1e-5)
