"""What it costs to tell a sequence its order, and to read recordings: parameters and time a step.

python benchmarks/sensor_inputs.py            (last output: benchmarks/sensor_inputs.txt)

A step is one of training on the small base: 16 recordings of one channel and 427 samples, or as
many tokens as the patch encoder makes of them. The steps of all paths take turns; a figure is the
median over rounds of the ratio of processor time to a path that reads its tokens as a set.
"""

import statistics
import time

import torch

from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.nn.kernels import KernelSpec
from pathweave.nn.patches import PatchSpec
from pathweave.runs.loading import load_base

BATCH, LENGTH, TOKENS, WIDTH = 16, 427, 54, 128
ROUNDS = 9
PATHS = {
    "tokens as a set": PathSpec("unordered", WIDTH, 4),
    "sinusoids": PathSpec("sinusoids", WIDTH, 4, positions="sinusoidal"),
    "learned positions": PathSpec("table", WIDTH, 4, positions="learned"),
    "patch encoder": PathSpec(
        "patches", 2, 4, positions="sinusoidal", patches=PatchSpec(16, 8, WIDTH)
    ),
    "kernel encoder": PathSpec("kernels", 2, 4, positions="sinusoidal", patches=KernelSpec(LENGTH)),
}


def prompts(spec: PathSpec) -> list[Prompt]:
    """Return questions about random media of a path."""
    found: list[Prompt] = []
    for _ in range(BATCH):
        features = torch.randn(1, TOKENS, WIDTH)
        if spec.patches is not None:
            values = torch.randn(1, LENGTH, 1).cumsum(1)
            features = torch.cat([values, torch.ones_like(values)], dim=2)
        found.append([Medium(spec.name, features), "Which leaf?"])
    return found


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    model = PathWeave(load_base("mini"))
    shown, optimizers = {}, {}
    for label, spec in PATHS.items():
        path = model.paths.expand(spec)
        shown[label] = prompts(spec)
        media = (piece for prompt in shown[label] for piece in prompt)
        units = [unit for each in media if isinstance(each, Medium) for unit in each.features]
        path.standardise_input(units)
        optimizers[label] = torch.optim.AdamW(path.parameters(), fused=True)
    model.train()

    def step(label: str) -> float:
        began = time.process_time()
        loss, tokens = model(shown[label], ["one"] * BATCH)
        (loss / tokens).backward()
        optimizers[label].step()
        optimizers[label].zero_grad()
        return time.process_time() - began

    rounds = [{label: step(label) for label in PATHS} for _ in range(ROUNDS + 1)][1:]
    print(f"batch {BATCH}, {TOKENS} tokens or {LENGTH} samples, {torch.get_num_threads()} threads")
    print(f"{'':<20}{'parameters of input':>20}{'time of a step':>16}")
    for label, spec in PATHS.items():
        counts = model.paths[spec.name].count()
        ratio = statistics.median(found[label] / found["tokens as a set"] for found in rounds)
        print(f"{label:<20}{counts['input'] + counts.get('patches', 0):>20,}{ratio:>16.2f}")


if __name__ == "__main__":
    main()
