"""Which experts a path uses: mean gate weights on recorded inputs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.nn import Mixture
from pathweave.runs.path_directory import describe_path, load_proof
from pathweave.runs.run_directory import RunDirectory


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
    by_site = gate_usage_by_site(model, name, features, texts).values()
    # The path's own adapter is an expert at every site; where a predecessor is none, it counts 0.
    experts = dict.fromkeys(expert for site in by_site for expert in site)
    return {e: sum(site.get(e, 0.0) for site in by_site) / len(by_site) for e in experts}


@torch.no_grad()
def gate_usage_by_site(
    model: PathWeave, name: str, features: Sequence[Tensor], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the mean weight of each expert of a path at each site with a gate, over tokens.

    Args:
        model: The model.
        name: The path.
        features: Encoded media of the path.
        texts: Instruction beside each.

    Returns:
        By site, then by name of the path that an expert's adapter belongs to.
    """
    totals: defaultdict[str, defaultdict[str, list[float]]]
    totals = defaultdict(lambda: defaultdict(list))
    earlier = model.paths[name].spec.predecessors
    noted: dict[str, Mixture] = {}
    for site, mixture in model.paths.mixtures(name).items():
        if mixture.gate is None:
            noted[site] = mixture
            continue
        owners = [p for p in earlier if model.paths[p].adapter(site) is not None]
        noted[site] = _Noted(**vars(mixture), experts=(*owners, name), totals=totals[site])
    model.eval()
    prompts: list[Prompt] = [
        [Medium(name, f.float()), text] for f, text in zip(features, texts, strict=True)
    ]
    if model.paths[name].experts_in_llm():
        model.logits_after(prompts, {name: noted})
    else:
        model.lay_out(prompts, {name: noted})
    return {
        site: {expert: sum(values) / len(values) for expert, values in experts.items()}
        for site, experts in totals.items()
        if experts
    }


@dataclass(frozen=True)
class _Noted(Mixture):
    """A mixture that notes what its gate gives each expert."""

    experts: Sequence[str]
    totals: defaultdict[str, list[float]]

    def weighed(self, x: Tensor) -> Tensor:
        weights = self.gate_weights(x).float().flatten(0, -2).mean(0)
        for expert, weight in zip(self.experts, weights.tolist(), strict=True):
            self.totals[expert].append(weight)
        return super().weighed(x)


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
