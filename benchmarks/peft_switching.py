"""Paths in one batch: ours beside peft's two ways, on the same layers of one language model.

    python -m benchmarks.peft_switching [--small] [--rounds N] [--out DIR]

Four paths have adapters at the attention layers of the small base's language model, and peft gets
them as LoRA of the same rank, so that all ways give the same answers. A batch asks about a medium
of each path. ``set_adapter`` answers path by path; ``adapter_names`` takes the batch as it is.
Every way makes the tokens of the media itself.
"""

import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor

from benchmarks.report import Figure, Report, in_turn, options, ratio
from pathweave.bases.fetch import weights_dir
from pathweave.bases.mini import LLM, load_smollm
from pathweave.model.generate import search
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.released.peft_adapter import write_lora
from pathweave.runs.loading import load_base

NAMES = ("first", "second", "third", "fourth")
SITES = ("llm/*/self_attn/*",)
WIDTH, UNIT, RANK = 1280, 49, 16
QUESTION = "What is this thing that you see here?"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    torch.manual_seed(0)
    model = woven()
    each = 1 if given.small else 2
    batch: list[Prompt] = [
        [Medium(name, torch.randn(1, UNIT, WIDTH)), QUESTION] for _ in range(each) for name in NAMES
    ]
    settings = {"paths": len(NAMES), "rank": RANK, "batch": len(batch), "peft": peft.__version__}
    settings["type"] = str(model.llm.dtype).removeprefix("torch.")
    report = Report("peft_switching", "What does a batch of several paths cost?", settings)
    with torch.no_grad():
        lora = as_lora(model)
        for tokens in (1, 2) if given.small else (1, 16):
            report.figures += compare(model, lora, batch, tokens, given)
    report.finish(given.out)


def woven() -> PathWeave:
    """Return the small base with paths of random weights, each by itself, as a LoRA is.

    In float32: of two words that bfloat16 cannot tell apart, each way may say another.
    """
    base = load_base("mini")
    base.llm.float()
    model = PathWeave(base)
    for name in NAMES:
        spec = PathSpec(name, WIDTH, 4, rank=RANK, sites=SITES, gate=None, scope="prompt")
        for parameter in model.paths.expand(spec).experts.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval().requires_grad_(False)


def as_lora(model: PathWeave) -> Any:  # noqa: ANN401 (a model of peft)
    """Return the same language model with the paths as adapters of peft."""
    llm = load_smollm(weights_dir(LLM), model.llm.dtype)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without a bias, which cannot be merged
        for name in NAMES:
            (directory := Path(place) / name).mkdir()
            write_lora(model, name, LLM, directory)
        lora = peft.PeftModel.from_pretrained(llm, Path(place) / NAMES[0], NAMES[0])
        for name in NAMES[1:]:
            lora.load_adapter(Path(place) / name, name)
    return lora.eval()


def compare(
    model: PathWeave,
    lora: Any,  # noqa: ANN401 (a model of peft)
    batch: Sequence[Prompt],
    tokens: int,
    given: Namespace,
) -> list[Figure]:
    """Return the time of peft's ways of answering a batch to that of ours."""
    names = [prompt[0].path for prompt in batch if isinstance(prompt[0], Medium)]
    groups = {name: [i for i, of in enumerate(names) if of == name] for name in NAMES}

    def ours(rows: Sequence[int]) -> Tensor:
        return search(model, [batch[i] for i in rows], tokens, min_new_tokens=tokens)

    def theirs(rows: Sequence[int], **how: object) -> Tensor:
        embeds = torch.stack(model.embed_prompts([batch[i] for i in rows]))  # of one length
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        return lora.generate(
            inputs_embeds=embeds, attention_mask=mask, do_sample=False,
            max_new_tokens=tokens, min_new_tokens=tokens, **how,
        )  # fmt: skip

    def by_path(answer: Callable[[Sequence[int]], Tensor]) -> Tensor:
        said = torch.zeros(len(batch), tokens, dtype=torch.long)
        for name, rows in groups.items():
            lora.set_adapter(name)
            said[rows] = answer(rows)
        return said

    everything = range(len(batch))
    ways: dict[str, Callable[[], Tensor]] = {
        "ours, one batch": lambda: ours(everything),
        "ours, path by path": lambda: by_path(ours),
        "peft, set_adapter path by path": lambda: by_path(theirs),
        "peft, adapter_names in one batch": lambda: theirs(everything, adapter_names=names),
    }
    first, *others = (way() for way in ways.values())
    assert all(torch.equal(first, other) for other in others)
    times = in_turn(ways, given.rounds, time.process_time)
    words = "one word" if tokens == 1 else f"{tokens} words"
    return [
        Figure(
            f"{way}, {words}, to ours in one batch",
            ratio(times, way, "ours, one batch"),
            at_least=1 if way.startswith("peft") else None,
            note="equal tokens",
        )
        for way in list(ways)[1:]
    ]


if __name__ == "__main__":
    main()
