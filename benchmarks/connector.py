"""What adapters cost: the connector with 0 to 4 predecessors, fused and plain, pure and mixed.

python benchmarks/connector.py            (last output: benchmarks/connector.txt)

Every figure is a ratio to the connector without adapters, measured in the same run.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pathweave.model.paths import Paths, PathSpec
from pathweave.nn import Adapter, Experts, QFormer, QFormerConfig, Route, woven_sites

NAMES = ("base", "first", "second", "third", "fourth")
ROUNDS = 7
SHAPE = QFormerConfig(
    dim=384, num_layers=6, num_heads=12, hidden_dim=1536, encoder_width=1280, vocab_size=1000
)


class PlainMixture(nn.Module):
    """The sum over experts, one after another: what the fused form is compared with."""

    def __init__(self, experts: Experts, earlier: Sequence[Adapter]) -> None:
        super().__init__()
        self.experts, self.earlier = experts, list(earlier)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated sum."""
        outputs = [
            adapter(x, inner)
            for adapter, inner in zip(self.earlier, self.experts.in_adapters, strict=True)
        ]
        outputs.append(self.experts.adapter(x))
        if self.experts.gate is None:
            return outputs[0]
        weights = self.experts.gate(x)
        return sum(w[..., None] * y for w, y in zip(weights.unbind(-1), outputs, strict=True))


def build() -> tuple[QFormer, Paths]:
    """Return a Q-Former of the small base's size and five paths with random weights."""
    torch.manual_seed(0)
    qformer = QFormer(SHAPE).eval()
    hosts = {s: (m.host.in_features, m.host.out_features) for s, m in woven_sites(qformer).items()}
    paths = Paths(SHAPE.dim, SHAPE.encoder_width, hosts)
    for i, name in enumerate(NAMES):
        path = paths.expand(PathSpec(name, 1280, 4, NAMES[1:i], rank=8 if i else 0))
        for parameter in path.parameters():
            nn.init.normal_(parameter, std=0.1)
    return qformer, paths.eval()


def plain_route(paths: Paths, name: str, count: int) -> Route:
    """Return a route whose mixtures are computed expert by expert."""
    path = paths[name]
    mixtures = {}
    for site in path.experts:
        experts = path.experts_at(site)
        assert experts is not None
        found = (paths[p].adapter(site) for p in path.spec.predecessors)
        mixtures[site] = PlainMixture(experts, [a for a in found if a is not None])
    return Route(((mixtures, count),))  # type: ignore[arg-type]


@torch.no_grad()
def seconds(run: Callable[[], object]) -> float:
    """Return the median time of a call, in seconds."""
    run()
    marks = [time.perf_counter()]
    for _ in range(ROUNDS):
        run()
        marks.append(time.perf_counter())
    return statistics.median(b - a for a, b in pairwise(marks))


def main() -> None:
    """Measure and print."""
    qformer, paths = build()
    batch = 20
    queries, features = torch.randn(batch, 4, 384), torch.randn(batch, 9, 1280)
    text = torch.randint(0, 1000, (batch, 8))

    def forward(route: Route) -> Tensor:
        return qformer(queries, features, route, None, text)

    base = seconds(lambda: forward(paths.route(["base"] * batch)))
    print(f"Q-Former of the small base, batch {batch}, {torch.get_num_threads()} threads")
    print(f"{'path':<24}{'fused':>8}{'plain':>8}   time relative to no adapters")
    for name in NAMES[1:]:
        fused = seconds(lambda name=name: forward(paths.route([name] * batch)))  # type: ignore[misc]
        plain = seconds(lambda name=name: forward(plain_route(paths, name, batch)))  # type: ignore[misc]
        count = len(paths[name].spec.predecessors)
        label = f"{count} predecessors"
        print(f"{label:<24}{fused / base:>8.2f}{plain / base:>8.2f}")
    mixed = seconds(lambda: forward(paths.route([name for name in NAMES for _ in range(4)])))
    print(f"{'all five in one batch':<24}{mixed / base:>8.2f}")


if __name__ == "__main__":
    main()
