"""Options of single methods, each in a section of its own under ``method:`` in a recipe."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Options(BaseModel):
    """A section whose fields are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class L2(Options):
    """L2 regularisation towards the stage before, with weight averaging."""

    strength: Strength = Field(
        1000.0, description="Pull towards the weights before the stage, per unit of learning rate."
    )
    inner_epoch: Count | None = Field(
        20, description="Steps between two weights that the average takes in; null averages none."
    )


class WiseFt(Options):
    """WiSE-FT: weights between those before the stage and the tuned ones."""

    alpha: float = Field(
        0.8, ge=0, le=1, description="Share of the tuned weights; the rest is as before the stage."
    )
    inner_epoch: Count = Field(20, description="Steps between two averagings.")


class Ewc(Options):
    """Elastic weight consolidation."""

    strength: Strength = Field(
        10000.0,
        description="Pull towards the weights before the stage, per unit of learning rate, at a "
        "weight of mean Fisher information.",
    )
    samples: Count = Field(
        64, description="Training samples of a finished stage that its information is measured on."
    )


class Lwf(Options):
    """Learning without forgetting."""

    weight: Strength = Field(
        10.0, description="Weight of the distance to the old connector's tokens, in the loss."
    )


class Replay(Options):
    """Experience replay."""

    samples: Count = Field(100, description="Training samples kept of every earlier modality.")
    weight: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Share of the samples drawn of each earlier modality, relative to the new one.",
    )


class Lora(Options):
    """Low-rank adaptation of the connector; its rank and hosts are ``rank`` and ``sites``."""

    alpha: float = Field(
        16.0, gt=0, allow_inf_nan=False, description="The update is scaled by alpha / rank."
    )


class Mera(Options):
    """Merge, then realign."""

    samples: Count = Field(
        100, description="Training samples of every modality that the realignment learns from."
    )
    steps: Count = Field(150, description="Optimiser steps of the realignment.")
    lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Peak learning rate of the realignment; null is that of the stage.",
    )


OPTIONS: dict[str, type[Options]] = {
    "l2": L2,
    "wise_ft": WiseFt,
    "ewc": Ewc,
    "lwf": Lwf,
    "replay": Replay,
    "lora": Lora,
    "mera": Mera,
}
