"""Sequential LoRA on the connector, through peft (LoRA: arXiv 2106.09685).

One low-rank update of the adapted hosts is trained on one modality after another, as in the SeqLoRA
of arXiv 2310.14152. Between stages it is merged into the connector, so that a run is read without
peft; the next stage takes it out again and goes on with it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import nn

from pathweave.errors import RecipeError
from pathweave.extras import import_extra
from pathweave.methods.lesson import Lesson, Method, StageContext
from pathweave.methods.path import add_path, trainable
from pathweave.methods.settings import Settings
from pathweave.model.paths import matches
from pathweave.nn import WovenLinear, woven_sites

ADAPTER = "default"


class Lora(Settings):
    """Low-rank adaptation of the connector; its rank and hosts are ``rank`` and ``sites``."""

    alpha: float = Field(
        16.0, gt=0, allow_inf_nan=False, description="The update is scaled by alpha / rank."
    )


def learn(context: StageContext, options: Lora) -> Iterator[Lesson]:
    """Train a path without adapters, and the update."""
    path = add_path(context.model, context.recipe, context.name, context.width(context.name))
    woven = _wrap(context, options.alpha)
    update = nn.ModuleDict({site: _factors(layer) for site, layer in woven.items()})
    if context.method_state:
        update.load_state_dict(context.method_state)
        for layer in woven.values():
            _take_out(layer)
    yield context.lesson(trainable({"path": path, "low_rank": update}))
    for layer in woven.values():
        _merge(layer)
    context.method_state.update(update.state_dict())


METHOD = Method(learn, Lora, trains=("a low-rank update of the connector",), shares=True)


def _wrap(context: StageContext, alpha: float) -> dict[str, WovenLinear]:
    """Have peft wrap the adapted hosts, and return the layers that hold them by site.

    Raises:
        PathWeaveError: If peft is not installed.
        RecipeError: If no host is adapted.
    """
    peft = import_extra("peft", "peft")
    method = context.recipe.method
    woven: dict[str, WovenLinear] = {}
    for part in (context.model.qformer, context.model.projector):
        chosen = {
            f"{name}.host": module
            for name, module in part.named_modules()
            if isinstance(module, WovenLinear) and matches(module.site, method.sites)
        }
        if chosen:
            wider = {n for n, m in chosen.items() if matches(m.site, method.plain_sites)}
            rank, plain_rank = method.rank, method.plain_rank or method.rank
            config = peft.LoraConfig(
                r=rank,
                lora_alpha=alpha,
                target_modules=[*chosen],
                # Scaled alike everywhere: by alpha / rank.
                rank_pattern=dict.fromkeys(wider, plain_rank),
                alpha_pattern=dict.fromkeys(wider, alpha * plain_rank / rank),
            )
            peft.inject_adapter_in_model(config, part, ADAPTER)
            del part.peft_config  # a note that would be in the way of the next stage
            woven |= {module.site: module for module in chosen.values()}
    if not woven:
        known = ", ".join(
            [*woven_sites(context.model.qformer), *woven_sites(context.model.projector)]
        )
        raise RecipeError(
            f"method.sites must match a host, got {list(method.sites)}; hosts are {known}"
        )
    return woven


def _factors(layer: WovenLinear) -> nn.ModuleDict:
    """Return the two factors of the update of a wrapped host."""
    wrapped: Any = layer.host
    return nn.ModuleDict({"A": wrapped.lora_A[ADAPTER], "B": wrapped.lora_B[ADAPTER]})


@torch.no_grad()
def _take_out(layer: WovenLinear) -> None:
    """Take the update of the stage before out of a host's weight, to go on with it beside."""
    wrapped: Any = layer.host
    wrapped.get_base_layer().weight -= wrapped.get_delta_weight(ADAPTER)


def _merge(layer: WovenLinear) -> None:
    """Put the update into the host's weight, and the host in the place of what wrapped it."""
    wrapped: Any = layer.host
    wrapped.merge()
    layer.host = wrapped.get_base_layer()
