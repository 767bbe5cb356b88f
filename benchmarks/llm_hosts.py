"""What adapters inside the language model cost: reading, a prompt, words, a step of training.

On the small base, and on a wide language model of random weights and few layers, where layers cost
more beside what adapters do. Every figure is a ratio of times of one run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.model.generate import generate
from pathweave.model.llm_hosts import llm_linears
from pathweave.model.paths import Paths, PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.nn import Mixture, Route
from pathweave.nn.hooked import Carried, carrying
from pathweave.runs.loading import load_base

BATCH, TOKENS, WORDS = 8, 64, 16
WIDTH, UNIT, QUERIES = 1280, 49, 4
QUESTION = "What is this thing that you see here, and what is it made of?"
QFORMER = PathSpec("qformer", WIDTH, QUERIES, rank=16, plain_sites=("projector",))
CHAIN = [f"inside_{number}" for number in range(1, 5)]
HALF, IDLE = 1.1, 1.05
WIDE = LlamaConfig(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=2,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=1000,
)
TINY = LlamaConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=1000,
)


def add_paths(paths: Paths) -> None:
    """Add four paths inside the language model, each with all before it, with random weights."""
    inside = replace(QFORMER, sites=("llm/*/self_attn/*",), rank=4)
    for number, name in enumerate(CHAIN):
        paths.expand(replace(inside, name=name, predecessors=tuple(CHAIN[:number])))
    for path in paths:
        for parameter in path.experts.parameters():
            nn.init.normal_(parameter, std=0.01)
    paths.eval().requires_grad_(False)


@contextmanager
def as_it_came(llm: PreTrainedModel) -> Iterator[None]:
    """Take the hooks out of a language model inside."""
    hooks = [d for m in llm.modules() for d in (m._forward_hooks, m._forward_pre_hooks) if d]
    kept = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    yield
    for each, found in zip(hooks, kept, strict=True):
        each.update(found)


def reading(label: str, llm: PreTrainedModel, paths: Paths, rounds: int) -> list[Figure]:
    """Return what it costs to read words with hooks, and with half of them on a path."""
    ids = torch.randint(llm.config.vocab_size, (BATCH, TOKENS))
    half = torch.arange(BATCH * TOKENS).view(BATCH, TOKENS)[:, TOKENS // 2 :].flatten()

    @torch.no_grad()
    def read(mixtures: Mapping[str, Mixture] | None = None) -> None:
        runs = () if mixtures is None else ((mixtures, half),)
        with carrying(Carried(Route(runs, tokens=TOKENS))):
            llm(input_ids=ids, logits_to_keep=1)

    @torch.no_grad()
    def unhooked() -> None:
        with as_it_came(llm):
            llm(input_ids=ids, logits_to_keep=1)

    first, last = (paths.mixtures(CHAIN[i]) for i in (0, -1))
    times = in_turn(
        {
            "came": unhooked,
            "idle": read,
            "first": lambda: read(first),
            "last": lambda: read(last),
        },
        rounds,
    )
    what = f"{label}, reading {TOKENS} words"
    return [
        Figure(f"{what}, hooked, no path taken", ratio(times, "idle", "came"), at_most=IDLE),
        Figure(f"{what}, half on path 1", ratio(times, "first", "came"), at_most=HALF),
        Figure(f"{what}, half on path 4", ratio(times, "last", "came"), at_most=HALF),
    ]


def using(model: PathWeave, rounds: int) -> list[Figure]:
    """Return what prompts, words and steps cost, relative to a path with adapters in the Q-Former.

    The question comes before the medium: its tokens are on no path.
    """
    ways = {"Q-Former": QFORMER.name, "path 1": CHAIN[0], "path 4": CHAIN[-1]}
    asked = {name: prompts(name) for name in ways.values()}
    figures = []
    for words, what in ((1, "a prompt read, one word said"), (WORDS, f"{WORDS} words said")):
        variants = {
            way: lambda name=name, words=words: generate(
                model, asked[name], words, min_tokens=words
            )
            for way, name in ways.items()
        }
        figures += relative(f"small base, {what}", variants, rounds)
    steps: dict[str, Callable[[], object]] = {
        way: lambda name=name: step(model, name)  # type: ignore[misc]
        for way, name in ways.items()
    }
    again = "path 4, layers computed again"
    steps[again] = lambda: step(model, CHAIN[-1], again=True)
    return figures + relative("small base, a step of training", steps, rounds)


def relative(what: str, variants: Mapping[str, Callable[[], object]], rounds: int) -> list[Figure]:
    """Return the ratio of each variant to the first."""
    times, base = in_turn(variants, rounds), next(iter(variants))
    note = "to a path with hosts in the Q-Former"
    return [
        Figure(f"{what}, {way}", ratio(times, way, base), note=note)
        for way in variants
        if way != base
    ]


def prompts(name: str) -> list[Prompt]:
    """Return questions about random media of a path."""
    return [[Medium(name, torch.randn(1, UNIT, WIDTH)), QUESTION] for _ in range(BATCH)]


def step(model: PathWeave, name: str, again: bool = False) -> None:
    """Compute the gradients of a batch."""
    path = model.paths[name].requires_grad_(True)
    model.checkpointing = again
    model.train()
    loss: Tensor = model(prompts(name), ["a red shoe"] * BATCH)[0]
    loss.backward()
    model.zero_grad(set_to_none=True)
    path.requires_grad_(False)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    torch.manual_seed(0)
    wide = TINY if given.small else WIDE
    report = Report(
        "llm_hosts",
        "What do adapters inside the language model cost?",
        {
            "hosts": "the attention layers of every layer",
            "rank": 4,
            "batch": BATCH,
            "type": "float32",
            "wide": f"{wide.num_hidden_layers} layers of width {wide.hidden_size}, random weights",
        },
    )
    llm = LlamaForCausalLM(wide).eval().requires_grad_(False)
    paths = Paths(16, WIDTH, {}, foreign=llm_linears(llm))
    add_paths(paths)
    report.figures += reading("wide", llm, paths, given.rounds)
    if not given.small:
        model = PathWeave(load_base("mini"))
        model.paths.expand(QFORMER)
        add_paths(model.paths)
        model.eval()
        report.figures += reading("small base", model.llm, model.paths, given.rounds)
        report.figures += using(model, given.rounds)
    report.finish(given.out)


if __name__ == "__main__":
    main()
