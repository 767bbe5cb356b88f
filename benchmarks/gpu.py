"""What holds on one CUDA device: the answers of a CPU, no graph breaks, and the full size.

    python -m benchmarks.gpu                              (within 6 minutes; 24 GB of the device)
    python -m benchmarks.gpu --small --device cpu         (the same code, tiny)

Weights are random and made in place, so nothing is fetched. Without a device it says so and ends. A
check that fails is named, and the others go on; none begins after five minutes.
"""

import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from benchmarks.connector import BERT_BASE, TINY, measure
from benchmarks.full_size_step import (
    ANSWER,
    NEWEST,
    QUESTION,
    Sizes,
    build_model,
    build_tower,
    encode,
)
from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.methods.settings import Training
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.model.rank import log_likelihoods
from pathweave.train.schedule import make_optimizer

SECONDS = 300  # no check begins later
BATCH, SAID = 8, 16
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args(words)
    if given.device != "cpu" and not torch.cuda.is_available():
        print("skipped: torch sees no CUDA device here")
        return
    report = Report("gpu", "What holds on a GPU?", {"device": device_name(given.device)})
    failed, began = [], time.perf_counter()
    torch.manual_seed(0)
    for check in (parity, compiled, connector, full_size):
        if time.perf_counter() - began > SECONDS:
            failed.append(f"{check.__name__} (no time left)")
            continue
        try:
            report.figures += check(given)
        except Exception:
            traceback.print_exc()
            failed.append(check.__name__)
    report.figures.append(Figure("all checks together", time.perf_counter() - began, "s", 360))
    report.finish(given.out)
    if failed:
        sys.exit(f"checks failed: {', '.join(failed)}; see above")


def device_name(device: str) -> str:
    """Return the name of the device's model."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def prompts(model: PathWeave, count: int, units: int, tokens: int) -> list[Prompt]:
    """Return questions about random media of the model's paths in turn, equal on every device."""
    chance = torch.Generator().manual_seed(0)
    widths = {path.spec.name: path.spec.encoder_width for path in model.paths}
    names = [*widths]
    return [
        [
            Medium(name, torch.randn(units, tokens, widths[name], generator=chance)),
            QUESTION,
        ]
        for name in (names[i % len(names)] for i in range(count))
    ]


def gradients(model: PathWeave, asked: Sequence[Prompt]) -> tuple[float, torch.Tensor]:
    """Return the loss a token and the gradients of the newest path, in one row, on the CPU."""
    loss, tokens = model(asked, [ANSWER] * len(asked))  # in evaluation mode: gates draw no noise
    (loss / tokens).backward()
    found = torch.cat(
        [p.grad.flatten() for p in model.paths[NEWEST].parameters() if p.grad is not None]
    )
    model.zero_grad(set_to_none=True)
    return loss.item() / tokens, found.float().cpu()


def parity(given: Namespace) -> list[Figure]:
    """Compare losses, gradients, rankings and answers with those of the CPU, in float32."""
    sizes = Sizes.small()
    if not given.small:  # wide enough that a device takes its fast kernels
        sizes = replace(sizes, llm={**sizes.llm, "hidden_size": 256, "intermediate_size": 704})
    here = build_model(sizes).float()
    there = build_model(sizes, given.device).float()
    there.load_state_dict(here.state_dict())
    asked = prompts(here, 20, units=2, tokens=7)
    (loss, grads), (same_loss, same_grads) = gradients(here, asked), gradients(there, asked)
    said, same_said = (generate(model, asked, SAID, min_tokens=SAID) for model in (here, there))
    choices = [f"a {letter}" for letter in LETTERS]
    ranked, same_ranked = (log_likelihoods(m, asked, choices).cpu() for m in (here, there))
    equal = sum(a == b for a, b in zip(said, same_said, strict=True)) / len(said)
    error = ((grads - same_grads).norm() / grads.norm()).item()
    return [
        Figure("loss, relative difference to the CPU", abs(loss - same_loss) / loss, "", 1e-5),
        Figure("gradients, relative difference to the CPU", error, "", 1e-3),
        Figure(
            "log-likelihoods of choices, largest difference",
            (ranked - same_ranked).abs().max().item(),
            "nats",
            1e-3,
        ),
        Figure(f"answers of {SAID} tokens equal to the CPU's", equal, "", at_least=1.0),
    ]


@torch.no_grad()
def compiled(given: Namespace) -> list[Figure]:
    """Compile connector and language model, each as one graph, and time the connector."""
    model = build_model(sizes_of(given), given.device)
    names = [path.spec.name for path in model.paths]
    rows = [name for name in names for _ in range(BATCH)]
    route = model.paths.route(rows)
    shape = model.qformer.shape
    queries = torch.stack([model.paths[name].queries for name in rows])
    features = torch.randn(len(rows), 33, shape.encoder_width, device=given.device)

    def connect() -> torch.Tensor:
        return model.projector(model.qformer(queries, features, route), route)

    def read() -> torch.Tensor:
        # From its embeddings on: the hook there asks what a call carries, which no graph can.
        return model.llm(inputs_embeds=embedded, use_cache=False).logits

    ids = torch.randint(3, 200, (BATCH, 64), device=given.device)
    embedded = model.llm.get_input_embeddings()(ids)
    backend = "aot_eager" if given.device == "cpu" else "inductor"
    timed: dict[str, Callable[[], object]] = {"eager": connect}
    breaks = 0
    for function in (connect, read):
        torch._dynamo.reset()
        breaks += torch._dynamo.explain(function)().graph_break_count
    torch._dynamo.reset()
    fast = torch.compile(connect, backend=backend)
    timed["compiled"] = fast
    times = in_turn(timed, given.rounds, device=given.device)
    drift = (fast() - connect()).abs().max() / connect().abs().max()
    return [
        Figure("graph breaks in connector and language model", breaks, "", 0),
        Figure(
            "mixed batch through the connector, compiled to eager",
            ratio(times, "compiled", "eager"),
        ),
        Figure("its largest relative difference", drift.item(), "", 1e-3),
    ]


def connector(given: Namespace) -> list[Figure]:
    """Measure the ratios of ``benchmarks.connector`` on the device."""
    size = "BERT-base"
    return measure(size, TINY if given.small else BERT_BASE, given.rounds, given.device)


def full_size(given: Namespace) -> list[Figure]:
    """Train and answer with a model of seven billion parameters."""
    on_cpu = given.device == "cpu"
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats()
    sizes = sizes_of(given)
    model, tower = build_model(sizes, given.device), build_tower(sizes, given.device)
    size = sizes.vision["image_size"]
    pair = [encode(tower, 2, size) for _ in range(BATCH)]
    asked: list[Prompt] = [[Medium(NEWEST, each), QUESTION] for each in pair]
    modules = nn.ModuleDict({"path": model.paths[NEWEST]})
    optimizer = make_optimizer(modules, Training())
    length = model.length(asked[0])

    def step() -> None:
        model.train()
        loss, tokens = model(asked, [ANSWER] * BATCH)
        (loss / tokens).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.eval()

    def alone() -> None:
        for each in asked:
            generate(model, [each], SAID, min_tokens=SAID)

    choices = [f"a {first}{second}" for first in LETTERS[:8] for second in LETTERS[:5]]
    whole: dict[str, Callable[[], object]] = {
        "encode": lambda: encode(tower, 2, size),
        "step": step,
        "together": lambda: generate(model, asked, SAID, min_tokens=SAID),
        "alone": alone,
        "ranked": lambda: log_likelihoods(model, asked[:1], choices),
        "whole prompts": lambda: losses(model, asked[:1], choices),
    }
    times = in_turn(whole, min(given.rounds, 5), device=given.device)
    median = {label: sorted(found)[len(found) // 2] for label, found in times.items()}
    figures = [
        Figure(
            "step of training, samples a second",
            BATCH / median["step"],
            "",
            note=f"batch {BATCH}, {length} tokens a prompt, two frames each",
        ),
        Figure("frames encoded a second", 2 / median["encode"], ""),
        Figure("tokens said a second, one at a time", BATCH * SAID / median["alone"], ""),
        Figure(
            f"{BATCH} answers together to one at a time, speed", ratio(times, "alone", "together")
        ),
        Figure(
            "40 choices ranked to whole prompts each, speed",
            ratio(times, "whole prompts", "ranked"),
            at_least=8,
        ),
    ]
    if not on_cpu:
        peak = torch.cuda.max_memory_allocated() / 1e9
        figures.append(Figure("peak memory of the device", peak, "GB", 24))
    return figures


@torch.no_grad()
def losses(model: PathWeave, asked: Sequence[Prompt], choices: Sequence[str]) -> None:
    """Compute the loss of each choice with its whole prompt."""
    for choice in choices:
        model(asked, [choice])


def sizes_of(given: Namespace) -> Sizes:
    """Return the sizes that were asked for."""
    return Sizes.small() if given.small else Sizes.full()


if __name__ == "__main__":
    main()
