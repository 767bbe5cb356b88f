"""What adapters inside the language model cost: a step of training, a prompt, a token, in time.

python benchmarks/llm_hosts.py            (last output: benchmarks/llm_hosts.txt)

On the small base. ``before`` is the same language model without any hook. The variants take turns;
a figure is the median over rounds of the ratio of processor time to the first of its table.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from pathweave.model.generate import generate
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.runs.loading import load_base

ROUNDS, BATCH, WIDTH, UNIT = 9, 8, 1280, 49
QUESTION = "What is this thing that you see here, and what is it made of?"
INSIDE = ("llm/*/self_attn/*",)
QFORMER = PathSpec("qformer", WIDTH, 4, rank=16, plain_sites=("projector",))
FIRST = replace(QFORMER, name="inside", sites=INSIDE, rank=4)


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    model = PathWeave(load_base("mini"))
    hooks = [m for m in model.llm.modules() if m._forward_hooks or m._forward_pre_hooks]
    with torch.no_grad():
        ids = torch.randint(1000, 40000, (BATCH, 64))
        kept = [(m, dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in hooks]

        def unhooked() -> None:
            """Read with the language model as transformers made it."""
            taken = [(layer, dict(layer._forward_hooks)) for layer in model.paths.foreign.values()]
            for layer, _ in taken:
                layer._forward_hooks.clear()
            for module, _, _ in kept:
                if isinstance(module, torch.nn.Embedding):
                    module._forward_hooks.clear()
                    module._forward_pre_hooks.clear()
            model.llm(input_ids=ids, logits_to_keep=1)
            for layer, found in taken:
                layer._forward_hooks.update(found)
            for module, after, before in kept:
                module._forward_hooks.update(after)
                module._forward_pre_hooks.update(before)

        model.paths.expand(QFORMER)
        model.paths.expand(FIRST)
        names = [FIRST.name]
        for number in range(1, 4):
            spec = replace(FIRST, name=f"inside_{number}", predecessors=tuple(names))
            model.paths.expand(spec)
            names.append(spec.name)
        randomise(model)
        model.eval().requires_grad_(False)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model.llm.dtype}")
        table("reading 64 words", {"before": unhooked, "hooks, no path": lambda: read(model, ids)})
        asked = {name: prompts(name) for name in (QFORMER.name, names[0], names[-1])}
        # The question comes before the medium: its tokens are on no path.
        table(
            "a prompt read, and one word said",
            {
                "Q-Former hosts": lambda: generate(model, asked[QFORMER.name], 1),
                "path 1 inside": lambda: generate(model, asked[names[0]], 1),
                "path 4 inside": lambda: generate(model, asked[names[-1]], 1),
            },
        )
        table(
            "a prompt read, and 16 words said",
            {
                "Q-Former hosts": lambda: generate(model, asked[QFORMER.name], 16, min_tokens=16),
                "path 1 inside": lambda: generate(model, asked[names[0]], 16, min_tokens=16),
                "path 4 inside": lambda: generate(model, asked[names[-1]], 16, min_tokens=16),
            },
        )
    table(
        "a step of training",
        {
            "Q-Former hosts": lambda: step(model, QFORMER.name),
            "path 1 inside": lambda: step(model, names[0]),
            "path 4 inside": lambda: step(model, names[-1]),
            "path 4 inside, layers computed again": lambda: step(model, names[-1], again=True),
        },
    )


def randomise(model: PathWeave) -> None:
    """Give every path weights that are not zero."""
    for path in model.paths:
        for parameter in path.experts.parameters():
            parameter.normal_(std=0.01)


def prompts(name: str) -> list[Prompt]:
    """Return questions about random media of a path."""
    return [[Medium(name, torch.randn(1, UNIT, WIDTH)), QUESTION] for _ in range(BATCH)]


def read(model: PathWeave, ids: torch.Tensor) -> None:
    """Read words alone."""
    model.llm(input_ids=ids, logits_to_keep=1)


def step(model: PathWeave, name: str, again: bool = False) -> None:
    """Compute the gradients of a batch."""
    path = model.paths[name].requires_grad_(True)
    model.checkpointing = again
    model.train()
    model(prompts(name), ["a red shoe"] * BATCH)[0].backward()
    model.zero_grad(set_to_none=True)
    path.requires_grad_(False)


def table(title: str, variants: dict[str, Callable[[], object]]) -> None:
    """Measure variants in turn and print their ratios to the first."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {label: [] for label in variants}
    for _ in range(ROUNDS):
        for label, run in variants.items():
            start = time.process_time()
            run()
            times[label].append(time.process_time() - start)
    base = next(iter(times.values()))
    print(f"\n{title}")
    for label, found in times.items():
        ratios = [one / other for one, other in zip(found, base, strict=True)]
        print(f"  {label:40} {statistics.median(ratios):5.2f}")


if __name__ == "__main__":
    main()
