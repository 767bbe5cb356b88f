"""Export of a path's experts in the language model as an adapter of peft: a LoRA with biases."""

import shutil
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from pathweave.bases.hub import is_remote
from pathweave.errors import PathError
from pathweave.extras import import_extra
from pathweave.model.llm_hosts import PREFIX, llm_linears
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave
from pathweave.nn import Mixture, Route
from pathweave.nn.hooked import Carried, carrying
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import load_run
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import new_directory, write_json
from pathweave.storage.tensors import write_tensors
from pathweave.train.presence import llm_directory
from pathweave.validation import unknown

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PATH = "path"  # directory of the whole path, beside them
WRAPPED = "base_model.model."  # what peft puts before the names of a model's layers
TRIED_TOKENS = 16


class Factors(NamedTuple):
    """What a LoRA holds of one layer: ``y + B A x + b``."""

    a: Float[Tensor, "rank dim"]
    b: Float[Tensor, "out rank"]
    bias: Float[Tensor, " out"]


def export_lora(root: Path, name: str, out: Path) -> dict[str, Any]:
    """Write what a path does inside the language model as a LoRA that peft loads.

    The whole path is written beside it: what the path does before the language model (queries,
    input norm, adapters of the Q-Former, parts of its own) cannot be in a LoRA. The adapter is
    loaded by peft once, and compared with the path.

    Args:
        root: A run.
        name: The path; scope ``prompt``, without gates in the language model.
        out: A new directory.

    Returns:
        The ``base_model``, the number of ``layers``, their ``ranks`` by count, the largest
        ``difference`` between the logits of the path and of peft for the same tokens, the
        ``largest`` of these logits, and the ``dtype`` of the language model, in which they are
        computed.

    Raises:
        RunError: If ``root`` is no run.
        PathError: If there is no such path, no LoRA computes what it does, or there is something at
            ``out``.
        PathWeaveError: If peft is not installed.
        DiskError: If the files cannot be written.
    """
    peft = import_extra("peft", "peft")
    if out.exists():
        raise PathError(
            f"{out} must be a new directory, got one that exists; choose another --lora"
        )
    run = RunDirectory(root)
    recipe = run.recipe()
    if name not in (finished := run.finished(recipe)):
        raise PathError(unknown("path", name, finished))
    model, _ = load_run(root, [name])
    mixtures, base = model.paths.mixtures(name), _language_model(recipe)
    with new_directory(out) as directory:
        ranks = write_lora(model, name, base, directory)
        shutil.copytree(run.path(name), directory / PATH)
        difference, largest = _difference(peft, model.llm, mixtures, directory, [*ranks])
    counts = {str(rank): count for rank, count in sorted(Counter(ranks.values()).items())}
    return {
        "base_model": base,
        "layers": len(ranks),
        "ranks": counts,
        "difference": difference,
        "largest": largest,
        "dtype": str(model.llm.dtype).removeprefix("torch."),
    }


def write_lora(model: PathWeave, name: str, base: str, directory: Path) -> dict[str, int]:
    """Write the files of a LoRA that peft loads, and return its rank by layer.

    Args:
        model: The model.
        name: The path; see ``export_lora``.
        base: Where others find the language model.
        directory: An empty directory.

    Raises:
        PathError: If no LoRA computes what the path does.
        PathWeaveError: If peft is not installed.
        DiskError: If the files cannot be written.
    """
    peft = import_extra("peft", "peft")
    factors = _factors(model.llm, model.paths[name], model.paths.mixtures(name))
    write_json(directory / CONFIG, _config(peft, factors, base))
    write_tensors(directory / TENSORS, _tensors(factors))
    return {layer: len(each.a) for layer, each in factors.items()}


def _factors(
    llm: PreTrainedModel, path: ModalPath, mixtures: dict[str, Mixture]
) -> dict[str, Factors]:
    """Return what a LoRA holds, by name of the layer.

    Raises:
        PathError: If no LoRA computes what the path does.
    """
    rule = f"path {path.spec.name!r} must have"
    inside = {site: m for site, m in mixtures.items() if site.startswith(PREFIX)}
    if not inside:
        raise PathError(
            f"{rule} adapters in the language model to be a LoRA, got sites "
            f"{list(path.spec.sites)}; train one with method.sites such as llm/*/self_attn/*"
        )
    if path.spec.scope != "prompt":
        raise PathError(
            f"{rule} scope prompt to be a LoRA, which corrects every token, got "
            f"{path.spec.scope}; train one with method.scope: prompt"
        )
    names = {id(layer): name for name, layer in llm.named_modules()}
    linears = llm_linears(llm)
    factors = {}
    for site, mixture in inside.items():
        if mixture.gate is not None:
            raise PathError(
                f"{rule} no gates in the language model to be a LoRA, which weighs all tokens "
                f"alike, got one at {site}; export the first path, or train one with gate: null"
            )
        rank = mixture.spread.shape[1]
        up, constants = mixture.outward[:rank], mixture.outward[rank:]
        bias = mixture.inward_bias @ up + constants.sum(0)
        factors[names[id(linears[site])]] = Factors(mixture.inward.T, up.T, bias)
    return factors


def _language_model(recipe: Recipe) -> str:
    """Return where others find the language model: its id on the hub, or its directory."""
    name = recipe.llm or recipe.base
    return name if is_remote(name) else str(llm_directory(recipe).absolute())


def _config(peft: ModuleType, factors: dict[str, Factors], base: str) -> dict[str, Any]:
    ranks = {name: len(each.a) for name, each in factors.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
        r=usual,
        lora_bias=True,
        # The scale of a LoRA is alpha / rank. That of the path is in B already.
        lora_alpha=usual,
        rank_pattern=others,
        alpha_pattern=others,
        target_modules=[*factors],
    )
    # peft writes a set, in any order.
    return {**config.to_dict(), "target_modules": [*factors]}


def _tensors(factors: dict[str, Factors]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, each in factors.items():
        named = {"lora_A.weight": each.a, "lora_B.weight": each.b, "lora_B.bias": each.bias}
        tensors |= {f"{WRAPPED}{name}.{key}": t.contiguous() for key, t in named.items()}
    return tensors


@torch.no_grad()
def _difference(
    peft: ModuleType,
    llm: PreTrainedModel,
    mixtures: dict[str, Mixture],
    directory: Path,
    names: list[str],
) -> tuple[float, float]:
    """Return by how much logits with the adapter, as peft loads it, differ from the path's.

    The second value is the largest of the path's.

    The language model is peft's then.

    Raises:
        PathError: If peft cannot load it, or adapts other layers.
    """
    words = cast(nn.Embedding, llm.get_input_embeddings()).num_embeddings
    count = min(TRIED_TOKENS, words)
    ids = torch.arange(count, device=llm.device)[None] * (words // count)
    every = Route(((mixtures, ids.new_tensor(range(count))),), tokens=count)
    with carrying(Carried(every)):
        expected = llm(input_ids=ids).logits
    rule = "a LoRA of peft must adapt the layers of the path and no other"
    remedy = "name other method.sites, or install a newer version of peft"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without a bias, which cannot be merged
            lora = peft.PeftModel.from_pretrained(llm, directory)
    # What peft does not support of a model fails in many ways.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PathError(f"{rule}, got {reason[:200]}; {remedy}") from error
    adapted = {
        name.removeprefix(WRAPPED)
        for name, module in lora.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    if other := sorted(adapted.symmetric_difference(names)):
        raise PathError(f"{rule}, got a difference in {other[0]} ({len(other)} differ); {remedy}")
    found = lora(input_ids=ids).logits
    return (found - expected).abs().max().item(), expected.abs().max().item()
