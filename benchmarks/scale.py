"""What a corpus of 100 million samples a modality costs, from operations and bytes of one sample.

    python -m benchmarks.scale --write            (writes the table of docs/scale.md)

Operations, memory and bytes come from ``pathweave estimate``: the real modules on tensors without
numbers, counted. How much of a device's peak is reached is an assumption, ``--tflops``.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathweave.estimate.costs import Estimate
from pathweave.estimate.estimate import estimate_recipe
from pathweave.recipe.reading import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"
START, END = "<!-- table: written by python -m benchmarks.scale --write -->", "<!-- end -->"
RECIPE = ROOT / "recipes" / "pathweave_vicuna7b.yaml"
# Shapes of language models: the paper's, and two of a newer family.
SHAPES = {
    "2B": {"hidden_size": 2048, "num_hidden_layers": 28, "intermediate_size": 8192},
    "7B": {},  # Vicuna-7B
    "70B": {"hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28672},
}
HEADS = {"2B": 32, "70B": 64}
BATCH, STAGE = 16, "audio"  # samples a device and step; a stage of middling length


@dataclass(frozen=True)
class Plan:
    """What is to be learnt, and on what.

    Attributes:
        samples: Samples of a modality, each seen once.
        modalities: Modalities in the end.
        tflops: Operations a second that a device reaches, in units of 10^12.
        gigabytes: Memory of a device.
        devices: Devices.
    """

    samples: int
    modalities: int
    tflops: float
    gigabytes: float
    devices: int


def estimated(name: str, modalities: int) -> Estimate:
    """Return the estimate of the paper's recipe with a language model of a size."""
    overrides: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as directory:
        if shape := SHAPES[name]:
            config = {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                **shape,
                "num_attention_heads": HEADS[name],
                "num_key_value_heads": 8,
                "vocab_size": 128256,
                "max_position_embeddings": 8192,
                "tie_word_embeddings": name == "2B",
            }
            (Path(directory) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            overrides["llm"] = directory
        recipe = load_recipe(RECIPE, overrides)
        return estimate_recipe(recipe, modalities, BATCH)


def row(name: str, plan: Plan) -> dict[str, str]:
    """Return the costs with one language model, by heading."""
    found = estimated(name, plan.modalities)
    stage = next(each for each in found.stages if each.modality == STAGE)
    step, memory = stage.step, stage.training
    assert step is not None
    assert memory is not None
    last = found.growth[-1]
    learnt = step.connector * last.connector_flops / found.growth[1].connector_flops + step.llm
    rate = plan.tflops * 1e12
    seconds = BATCH * learnt / rate
    rest = memory.total - memory.llm - memory.encoder
    shards = max(1, math.ceil(memory.llm / (0.9 * plan.gigabytes * 1e9 - rest)))
    hours = plan.samples * learnt / rate / 3600
    return {
        "language model": f"{name} ({found.llm_parameters / 1e9:.1f} B)",
        "operations of a step, a sample": f"{learnt / 1e12:.1f} T",
        "of these the encoder would add": f"{100 * step.encoder / learnt:.1f} %",
        f"memory of a device, batch {BATCH}": f"{(rest + memory.llm / shards) / 1e9:.0f} GB",
        "devices that share the weights": f"{shards}",
        "device hours, encoding": f"{plan.samples * step.encoder / rate / 3600:,.0f}",
        "device hours, one modality": f"{hours:,.0f}",
        f"days on {plan.devices} devices, {plan.modalities - 1} modalities": (
            f"{hours * (plan.modalities - 1) / plan.devices / 24:,.0f}"
        ),
        "features stored, one modality": f"{plan.samples * stage.feature_bytes / 1e12:,.0f} TB",
        "features read, a device": f"{BATCH * stage.feature_bytes / seconds / 1e6:,.0f} MB/s",
        "gradients exchanged, a device": f"{2 * last.path * 4 / seconds / 1e6:,.0f} MB/s",
        "weights gathered, a device": (
            f"{2 * memory.llm * (shards - 1) / shards / seconds / 1e9:,.1f} GB/s"
        ),
        f"path {plan.modalities}": f"{last.path * 4 / 1e6:.0f} MB",
        f"all {plan.modalities} paths": f"{last.all_paths * 4 / 1e6:.0f} MB",
    }


def main(words: Sequence[str] | None = None) -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000_000, help="of a modality")
    parser.add_argument("--modalities", type=int, default=16)
    parser.add_argument("--tflops", type=float, default=300, help="that a device reaches")
    parser.add_argument("--gigabytes", type=float, default=80, help="memory of a device")
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--llm", default=",".join(SHAPES), help="sizes, with commas between")
    parser.add_argument("--write", action="store_true", help="write the table of docs/scale.md")
    given = vars(parser.parse_args(words))
    write, names = given.pop("write"), given.pop("llm").split(",")
    columns = [row(name, Plan(**given)) for name in names]
    lines = [
        "| " + " | ".join([title, *(c[title] for c in columns)]) + " |" for title in columns[0]
    ]
    table = "\n".join([lines[0], "|---" + "|---:" * len(columns) + "|", *lines[1:]])
    print(table)
    if write:
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        PAGE.write_text(
            f"{before}{START}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
