"""Settings that decide how a stage learns: of its training, of its path, of a method."""

from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from pathweave.model.soft_vocabulary import Scope
from pathweave.nn import QFormerConfig
from pathweave.nn.adapter import InAdapterInit
from pathweave.nn.gate import GateKind
from pathweave.parts import is_own

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """A section of a recipe, whose fields are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Settings):
    """How one stage is trained."""

    steps: Positive = Field(200, description="Optimiser steps.")
    batch_size: Positive = Field(16, description="Samples per optimiser step, over all processes.")
    micro_batch: Positive | None = Field(
        None, description="Samples per forward pass and process; None takes all at once."
    )
    lr: float = Field(1e-5, gt=0, description="Peak learning rate.")
    projector_lr: float | None = Field(
        None, gt=0, description="Peak learning rate of a fully trained projector; None is lr."
    )
    up_lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of the adapters' up-projections; None is lr. They start at "
        "zero and want a higher one than the rest (LoRA+, arXiv 2402.12354).",
    )
    gate_lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of the gates; None is lr. As wide as their hosts, they "
        "want one as low as a whole layer's, or they turn hard before their experts have learnt.",
    )
    patches_lr: float | None = Field(
        None, gt=0, description="Peak learning rate of a patch encoder; None is lr."
    )
    llm_lr_share: PositiveFloat = Field(
        1.0,
        description="Peak learning rates of experts inside the language model, as a share of those "
        "of the others.",
    )
    warmup: int = Field(20, ge=0, description="Steps over which the learning rate rises linearly.")
    warmup_start_lr: float = Field(0.0, ge=0, description="Learning rate that it rises from.")
    min_lr_share: float = Field(0.0, ge=0, le=1, description="Share of lr left at the last step.")
    weight_decay: float = Field(0.05, ge=0, description="Decay of weights with two or more axes.")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="Decay of AdamW's running means of gradient and its square."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled to this norm.")
    max_update_rms: float | None = Field(
        None,
        gt=0,
        description="A tensor whose gradient is larger than usual by more than this factor moves "
        "the less (update clipping of StableAdamW, arXiv 2304.13013: 1); None does not limit it.",
    )
    medium_every: Positive | None = Field(
        50,
        description="Steps between two looks at whether the medium is used: the loss with it, with "
        "none, and with that of another sample; null is never.",
    )
    save_every: Positive = Field(50, description="Steps between two saves of the running stage.")
    checkpointing: bool = Field(
        False,
        description="Compute what the language model's layers made once more in the backward pass, "
        "instead of keeping it: less memory, more time.",
    )
    offload_optimizer: bool = Field(
        False,
        description="Keep the optimiser's moments on the CPU between two steps: less memory of an "
        "accelerator, more time; of use where a stage trains a whole connector.",
    )
    connector: bool = Field(
        False, description="Train the whole connector too (for a base that has never seen data)."
    )


class Reducer(Settings):
    """The Q-Former that each path has for itself on a vision LLM, trained from its start."""

    layers: Positive = Field(2, description="Layers.")
    width: int = Field(384, ge=8, multiple_of=8, description="Width of its rows.")

    @property
    def shape(self) -> QFormerConfig:
        """Its sizes: heads of up to 64, feed-forward blocks four times as wide."""
        heads = max(1, self.width // 64)
        while self.width % heads:
            heads -= 1
        return QFormerConfig(
            dim=self.width,
            num_layers=self.layers,
            num_heads=heads,
            hidden_dim=4 * self.width,
            encoder_width=self.width,
        )


class MethodSettings(Settings):
    """Settings of all methods; a recipe adds the options of single ones."""

    name: str = Field("pathweave", description="The way of learning; docs/methods.md.")
    queries: Positive = Field(32, description="Query tokens of each path.")
    rank: Positive = Field(8, description="Bottleneck width of the adapters.")
    sites: tuple[str, ...] = Field(
        ("*",),
        description="Patterns of the hosts that are adapted; `llm/*/self_attn/*` are the language "
        "model's attention layers.",
    )
    scope: Scope = Field(
        "onward",
        description="Tokens that adapters in the language model correct: `onward`, from the "
        "medium's first to the end of the answer; `medium`, its own alone; `prompt`, all.",
    )
    plain_sites: tuple[str, ...] = Field(
        ("projector",), description="Patterns of hosts whose experts are summed without gates."
    )
    plain_rank: Positive | None = Field(
        None, description="Bottleneck width of the adapters at plain sites; null is rank."
    )
    gate: GateKind | None = Field("softmax", description="Kind of the gates; null sums experts.")
    top_k: Positive = Field(2, description="Experts kept by a top_k gate.")
    in_adapter: InAdapterInit | None = Field(
        "zero", description="Initial value of the in-adapters; null places none."
    )
    reducer: Reducer = Field(
        Reducer(), description="The Q-Former that each path has for itself on a vision LLM."
    )
    standardise: bool = Field(
        True, description="Start the input norm from the statistics of the training features."
    )

    own: dict[str, Any] = Field({}, description="Options of a method of your own.")

    @property
    def options(self) -> Settings | dict[str, Any] | None:
        """Options of the method itself; None if it has none. Those of a user's are plain values."""
        return self.own if is_own(self.name) else getattr(self, self.name, None)


@runtime_checkable
class RunSettings(Protocol):
    """What a method reads of a recipe: ``recipe.schema.Recipe`` is one."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def curriculum(self) -> tuple[str, ...]:
        """Modalities in the order in which they are learnt."""

    @property
    def method(self) -> MethodSettings:
        """How stages after the first learn."""

    def training_of(self, name: str) -> Training:
        """Return the training settings of one stage."""

    def predecessors_of(self, name: str) -> tuple[str, ...] | None:
        """Return the earlier paths that one builds on; None is all that have adapters."""

    def input_of(self, name: str) -> dict[str, Any]:
        """Return the fields of ``PathSpec`` that say how the features of a stage are read."""
