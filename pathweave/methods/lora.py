"""Sequential LoRA on the connector, through peft (LoRA: arXiv 2106.09685).

One low-rank update of the adapted hosts is trained on one modality after another, as in the SeqLoRA
of arXiv 2310.14152. Between stages it is merged into the connector, so that a run is read without
peft; the next stage takes it out again and goes on with it.
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from pathweave.errors import RecipeError
from pathweave.extras import import_extra
from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import add_path, trainable
from pathweave.methods.settings import PositiveFloat, Settings
from pathweave.model.llm_hosts import PREFIX
from pathweave.model.paths import matches
from pathweave.nn import WovenLinear, woven_sites

ADAPTER = "default"


class Lora(Settings):
    """Low-rank adaptation of the connector; its rank and hosts are ``rank`` and ``sites``."""

    alpha: PositiveFloat = Field(16.0, description="The update is scaled by alpha / rank.")


def learn(context: StageContext, options: Lora) -> Lessons:
    """Train a path without adapters, and the update."""
    path = add_path(context.model, context.recipe, context.name, context.width(context.name))
    woven = _wrap(context, options.alpha)
    hosts: dict[str, Any] = {site: layer.host for site, layer in woven.items()}  # classes of peft
    factors = {
        site: nn.ModuleDict({"A": host.lora_A[ADAPTER], "B": host.lora_B[ADAPTER]})
        for site, host in hosts.items()
    }
    update = nn.ModuleDict(factors)
    if context.method_state:
        update.load_state_dict(context.method_state)
        with torch.no_grad():
            for host in hosts.values():
                host.get_base_layer().weight -= host.get_delta_weight(ADAPTER)
    yield context.lesson(trainable({"path": path, "low_rank": update}))
    for site, host in hosts.items():
        host.merge()
        woven[site].host = host.get_base_layer()
    context.method_state.update(update.state_dict())


METHOD = Method(learn, Lora, trains=("a low-rank update of the connector",), shares=True)


def _wrap(context: StageContext, alpha: float) -> dict[str, WovenLinear]:
    """Have peft wrap the adapted hosts, and return the layers that hold them by site.

    Raises:
        PathWeaveError: If peft is not installed.
        RecipeError: If no host is adapted, or one of the language model.
    """
    peft = import_extra("peft", "peft")
    method = context.recipe.method
    if inside := [p for p in method.sites if p.startswith(PREFIX)]:
        raise RecipeError(
            f"method.sites of lora must be of the connector, got {inside[0]!r}: it merges its "
            "update, and a changed language model answers every other path in another way; name "
            "other sites, or a method with adapters, such as pathweave or adapters"
        )
    woven: dict[str, WovenLinear] = {}
    for part in (context.model.qformer, context.model.projector):
        chosen = {
            f"{name}.host": module
            for name, module in part.named_modules()
            if isinstance(module, WovenLinear) and matches(module.site, method.sites)
        }
        if chosen:
            wider = {n for n, m in chosen.items() if matches(m.site, method.plain_sites)}
            plain_rank = method.plain_rank or method.rank
            config = peft.LoraConfig(
                r=method.rank,
                lora_alpha=alpha,
                target_modules=[*chosen],
                # Scaled alike everywhere: by alpha / rank.
                rank_pattern=dict.fromkeys(wider, plain_rank),
                alpha_pattern=dict.fromkeys(wider, alpha * plain_rank / method.rank),
            )
            peft.inject_adapter_in_model(config, part, ADAPTER)
            del part.peft_config  # a note that would be in the way of the next stage
            woven |= {module.site: module for module in chosen.values()}
    if not woven:
        known = ", ".join(woven_sites(context.model.qformer) | woven_sites(context.model.projector))
        raise RecipeError(
            f"method.sites must match a host, got {list(method.sites)}; hosts are {known}"
        )
    return woven
