"""Which experts a path uses: mean gate weights on recorded inputs."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium
from pathweave.nn import Mixture, woven_sites
from pathweave.runs.path_directory import describe_path, load_proof
from pathweave.runs.run_directory import RunDirectory


@torch.no_grad()
def gate_usage(
    model: PathWeave, name: str, features: Sequence[Tensor], texts: Sequence[str]
) -> dict[str, float]:
    """Return the mean weight of each expert of a path, over sites and tokens; they sum to 1.

    Args:
        model: The model.
        name: The path.
        features: Encoded media of the path.
        texts: Instruction beside each.

    Returns:
        By name of the path that an expert's adapter belongs to; empty for a path without gates.
    """
    layers = woven_sites(model.qformer) | woven_sites(model.projector)
    totals: defaultdict[str, list[float]] = defaultdict(list)
    earlier, hooks = model.paths[name].spec.predecessors, []

    def note(mixture: Mixture, experts: Sequence[str], _: object, inputs: Sequence[Any]) -> None:
        weights = mixture.gate_weights(inputs[0]).float().mean((0, 1))
        for expert, weight in zip(experts, weights.tolist(), strict=True):
            totals[expert].append(weight)

    for site, mixture in model.paths.mixtures(name).items():
        if mixture.gate is not None:
            owners = [p for p in earlier if model.paths[p].adapter(site) is not None]
            noting = partial(note, mixture, [*owners, name])
            hooks.append(layers[site].register_forward_pre_hook(noting))
    try:
        model.eval()
        model.soft_tokens([Medium(name, f.float()) for f in features], texts)
    finally:
        for hook in hooks:
            hook.remove()
    # The path's own adapter is an expert at every site; where a predecessor is none, it counts 0.
    return {expert: sum(values) / len(totals[name]) for expert, values in totals.items()}


def recorded_gate_usage(
    model: PathWeave, run: RunDirectory, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the gate usage of each path with gates, on the inputs that are kept with the path.

    Args:
        model: The model with the paths.
        run: The run that they are of.
        names: The paths.
    """
    usage = {}
    for name in names:
        described, tensors = describe_path(run.path(name)), load_proof(run.path(name))
        if tensors and (proof := described.get("proof")) and described["parameters"]["gates"]:
            texts = proof["texts"]
            features = [tensors[f"features_{i}"] for i in range(len(texts))]
            found = gate_usage(model, name, features, texts)
            usage[name] = {expert: round(weight, 4) for expert, weight in found.items()}
    return usage
