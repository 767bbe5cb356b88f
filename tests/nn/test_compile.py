"""The connector as one graph; run with ``JAXTYPING_DISABLE=1 python -m pytest -m unchecked``."""

import pytest
import torch

from pathweave.nn import woven_sites
from tests.tiny import chain, tiny_model

pytestmark = pytest.mark.unchecked


@torch.no_grad()
@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", "top_k", None])
def test_a_mixed_batch_compiles_without_graph_breaks(gate):
    model = tiny_model(*chain("sight", "sound", "range", gate=gate))
    route = model.paths.route(["sound", "sound", "range"])
    torch.manual_seed(0)
    queries, features = torch.randn(3, 3, 16), torch.randn(3, 5, 12)
    feature_mask = torch.arange(5) < torch.tensor([[5], [4], [2]])
    text = torch.randint(40, (3, 6))
    text_mask = torch.arange(6) < torch.tensor([[6], [1], [3]])

    def connect(queries, features, feature_mask, text, text_mask):
        rows = model.qformer(queries, features, route, feature_mask, text, text_mask)
        return model.projector(rows, route)

    given = (queries, features, feature_mask, text, text_mask)
    compiled = torch.compile(connect, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), connect(*given), atol=1e-5, rtol=1e-5)
    assert len(woven_sites(model.qformer)) == 20
