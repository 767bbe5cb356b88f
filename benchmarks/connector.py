"""What adapters cost: the Q-Former with 0 to 3 predecessors, with mixed batches, with 16 paths.

Every figure is a ratio of times of one run. In a step of training, what learns is what a path owns:
queries, input norm and adapters. The Q-Former without adapters learns queries and input norm, so
both send gradients through every layer to the features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.model.paths import Paths, PathSpec
from pathweave.nn import Adapter, Experts, QFormer, QFormerConfig, Route, woven_sites

RANK, QUERIES, TEXT, TOKENS, BATCH, PATHS = 8, 32, 16, 257, 8, 16
BERT_BASE = QFormerConfig(768, 12, 12, 3072, 1408, vocab_size=1000)
SMALL_BASE = QFormerConfig(384, 6, 12, 1536, 1280, vocab_size=1000)
TINY = QFormerConfig(16, 2, 2, 32, 24, vocab_size=1000)
# Most that a forward pass and a step of training should take, relative to no adapters.
LIMITS = {"BERT-base": (1.1, 1.2), "small base": (1.2, 1.3)}
MIXED, INDEPENDENT = 1.1, 1.05
NONE, TOP_2 = "none", "path_16_top_2"
NAMES = [f"path_{number}" for number in range(1, PATHS + 1)]


class Plain(nn.Module):
    """A host and the sum over experts, one after another: what the fused form is compared with."""

    def __init__(self, host: nn.Module, experts: Experts, earlier: Sequence[Adapter]) -> None:
        super().__init__()
        self.host, self.experts, self.earlier = host, experts, [*earlier]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the host with the gated sum."""
        pairs = zip(self.earlier, self.experts.in_adapters, strict=True)
        outputs = [adapter(x, inner) for adapter, inner in pairs]
        outputs.append(self.experts.adapter(x))
        if self.experts.gate is None:
            return self.host(x) + outputs[0]
        weights = self.experts.gate(x)
        gated = (w[..., None] * y for w, y in zip(weights.unbind(-1), outputs, strict=True))
        return sum(gated, self.host(x))


@dataclass
class Connector:
    """A Q-Former, its paths, and what goes in."""

    qformer: QFormer
    paths: Paths
    features: list[Tensor]
    text: Tensor
    is_plain: bool = False

    @classmethod
    def of(cls, shape: QFormerConfig, number: int = PATHS, device: str = "cpu") -> "Connector":
        """Return one with so many paths, each with all before it, with random weights."""
        torch.manual_seed(0)
        qformer = QFormer(shape).eval().requires_grad_(False)
        sites = woven_sites(qformer)
        hosts = {s: (m.host.in_features, m.host.out_features) for s, m in sites.items()}
        paths = Paths(shape.dim, shape.encoder_width, hosts)
        spec = PathSpec(NONE, shape.encoder_width, QUERIES, rank=0)
        paths.expand(spec)
        for i in range(number):
            before = tuple(NAMES[:i])
            paths.expand(replace(spec, name=NAMES[i], predecessors=before, rank=RANK))
        if number == PATHS:
            before = tuple(NAMES[:-1])
            top = replace(spec, name=TOP_2, predecessors=before, rank=RANK, gate="top_k")
            paths.expand(top)
        for path in paths:
            for parameter in path.experts.parameters():
                nn.init.normal_(parameter, std=0.02)
        features = [*torch.randn(BATCH, TOKENS, shape.encoder_width).to(device)]
        text = torch.randint(shape.vocab_size or 0, (BATCH, TEXT)).to(device)
        frozen = paths.eval().requires_grad_(False).to(device)
        return cls(qformer.to(device), frozen, features, text)

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Return the query tokens of a batch whose row i takes path ``names[i]``."""
        queries = torch.stack([self.paths[name].queries for name in names])
        features = []
        for name in dict.fromkeys(names):
            own = [f for f, of in zip(self.features, names, strict=True) if of == name]
            features += self.paths[name].project(own)
        route = Route() if self.is_plain else self.paths.route(names)
        return self.qformer(queries, torch.stack(features), route, None, self.text)

    @torch.no_grad()
    def forward(self, name: str) -> Tensor:
        """Return the query tokens of a batch on one path."""
        return self([name] * BATCH)

    @torch.no_grad()
    def mixed(self, names: Sequence[str]) -> Tensor:
        """Return the query tokens of a batch that is on several paths in equal parts."""
        return self([name for name in names for _ in range(BATCH // len(names))])

    def step(self, name: str) -> None:
        """Compute the gradients of all that a path owns."""
        path = self.paths[name].requires_grad_(True).train()
        self([name] * BATCH).square().mean().backward()
        path.zero_grad(set_to_none=True)
        path.requires_grad_(False).eval()

    @contextmanager
    def plain(self, name: str) -> Iterator[None]:
        """Compute a path expert by expert inside."""
        path, layers = self.paths[name], woven_sites(self.qformer)
        hosts = {site: layers[site].host for site in path.experts}
        for site, host in hosts.items():
            experts = path.experts_at(site)
            assert experts is not None
            found = (self.paths[p].adapter(site) for p in path.spec.predecessors)
            earlier = [adapter for adapter in found if adapter is not None]
            layers[site].host = Plain(host, experts, earlier)  # type: ignore[assignment]
        self.is_plain = True
        yield
        self.is_plain = False
        for site, host in hosts.items():
            layers[site].host = host


def measure(size: str, shape: QFormerConfig, rounds: int, device: str = "cpu") -> list[Figure]:
    """Return the figures of one size."""
    model, alone = Connector.of(shape, device=device), Connector.of(shape, 1, device)
    alone.qformer = model.qformer  # of the same weights
    chain, last = NAMES[:4], NAMES[-1]
    forward: dict[str, Callable[[], object]] = {
        name: lambda name=name: model.forward(name)  # type: ignore[misc]
        for name in (NONE, *chain, last, TOP_2)
    }
    forward |= {"mixed": lambda: model.mixed(chain), "alone": lambda: alone.forward(chain[0])}

    def plain(run: Callable[[str], object], name: str) -> None:
        with model.plain(name):
            run(name)

    for name in (chain[-1], last):
        forward[f"plain {name}"] = lambda name=name: plain(model.forward, name)  # type: ignore[misc]
    step: dict[str, Callable[[], object]] = {
        name: lambda name=name: model.step(name)  # type: ignore[misc]
        for name in (NONE, *chain, last)
    }
    step[f"plain {chain[-1]}"] = lambda: plain(model.step, chain[-1])
    limits = dict(zip(("forward", "step"), LIMITS[size], strict=True))
    figures = []
    for what, variants in (("forward", forward), ("step", step)):
        times = in_turn(variants, rounds, device=device)
        for count, name in enumerate(chain):
            label = f"{size}, {what}, {count} predecessors"
            figures.append(Figure(label, ratio(times, name, NONE), at_most=limits[what]))
        label, note = (
            f"{size}, {what}, 3 predecessors, expert by expert",
            "the formula as it stands",
        )
        figures.append(Figure(label, ratio(times, f"plain {chain[-1]}", NONE), note=note))
        label = f"{size}, {what}, path 16, which has 15 predecessors"
        figures.append(Figure(label, ratio(times, last, NONE), note="each token weighs all"))
        if what == "step":
            continue
        label = f"{size}, {what}, path 16, top-2 gates"
        note = "two experts a token; all are computed"
        figures.append(Figure(label, ratio(times, TOP_2, NONE), note=note))
        label = f"{size}, {what}, path 16, expert by expert"
        figures.append(Figure(label, ratio(times, f"plain {last}", NONE)))
        each = zip(*(times[name] for name in chain), strict=True)
        times["mean"] = [sum(of_round) / len(chain) for of_round in each]
        label = f"{size}, {what}, a batch of paths 1 to 4, to batches of one path"
        mean = "to the mean of four batches, each of one of them"
        figures.append(Figure(label, ratio(times, "mixed", "mean"), at_most=MIXED, note=mean))
        label = f"{size}, {what}, path 1 of 16, to path 1 of 1"
        figures.append(Figure(label, ratio(times, chain[0], "alone"), at_most=INDEPENDENT))
    return figures


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    sizes = dict.fromkeys(LIMITS, TINY) if given.small else {
        "BERT-base": BERT_BASE, "small base": SMALL_BASE
    }  # fmt: skip
    report = Report(
        "connector",
        "What do adapters cost in the Q-Former?",
        {
            "batch": BATCH,
            "queries": QUERIES,
            "text tokens": TEXT,
            "encoder tokens": TOKENS,
            "rank": RANK,
            "type": "float32",
            **{
                name: f"{s.num_layers} layers of width {s.dim}, encoder width {s.encoder_width}"
                for name, s in sizes.items()
            },
            "relative to": "the same Q-Former on a path without adapters",
        },
    )
    for name, shape in sizes.items():
        report.figures += measure(name, shape, given.rounds)
    report.finish(given.out)


if __name__ == "__main__":
    main()
