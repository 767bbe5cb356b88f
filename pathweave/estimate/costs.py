"""Records of an estimate: parameters, bytes and operations of a stage and of the whole recipe."""

from dataclasses import dataclass

CACHED = 2  # bytes of a value: the cache rounds to float16


@dataclass(frozen=True)
class Features:
    """Features of one medium.

    Attributes:
        units: Frames or windows.
        tokens: Tokens of a unit.
        width: Width of a token.
        parameters: Parameters of the encoder.
        weight_bytes: Bytes of its weights.
        flops: Operations to encode the medium, forward.
    """

    units: int
    tokens: int
    width: int
    parameters: int = 0
    weight_bytes: int = 0
    flops: int = 0

    @property
    def cached_bytes(self) -> int:
        """Bytes that they take on disk."""
        return self.units * self.tokens * self.width * CACHED


@dataclass(frozen=True)
class Workload:
    """One sample of a path: one medium, a question, an answer.

    Attributes:
        units: Frames or windows of the medium; the Q-Former reads each by itself.
        tokens: Tokens that the encoder makes of a unit.
        queries: Query tokens of the path.
        text: Tokens of cue and question; the Q-Former is taken to read as many as the language
            model, which holds within a few tokens.
        answer: Tokens of the answer, the end of the sequence among them.
        reads_text: Whether the Q-Former reads the question.
    """

    units: int
    tokens: int
    queries: int
    text: int
    answer: int
    reads_text: bool = True

    @property
    def prompt(self) -> int:
        """Length of the prompt in the language model, in tokens."""
        return self.units * self.queries + self.text

    @property
    def sequence(self) -> int:
        """Length of prompt and answer in the language model, in tokens."""
        return self.prompt + self.answer


class Summed:
    """Numbers of one unit that add up."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Trained(Summed):
    """Trained parameters of a stage, by kind; they add up to all that require gradients.

    Attributes:
        adapters: Adapters inside the Q-Former, or in the tail of a vision LLM.
        llm_adapters: Adapters inside the language model.
        in_adapters: In-adapters.
        gates: Gates, their noise weights among them.
        projector_adapter: Adapter at the projector.
        queries: Query tokens.
        input_norm: Layer norm of encoder features.
        input_projection: Linear map of encoder features to the Q-Former's width.
        positions: Places of the tokens of a sequence.
        patches: Patch encoder.
        connector: Q-Former and projector themselves, or the path's own copies of them, in a stage
            that trains them.
        low_rank: Low-rank update of the connector.
        earlier: What earlier paths have for themselves.
    """

    adapters: int = 0
    llm_adapters: int = 0
    in_adapters: int = 0
    gates: int = 0
    projector_adapter: int = 0
    queries: int = 0
    input_norm: int = 0
    input_projection: int = 0
    positions: int = 0
    patches: int = 0
    connector: int = 0
    low_rank: int = 0
    earlier: int = 0


@dataclass(frozen=True)
class Memory(Summed):
    """Bytes held at once; what a use does not need is 0.

    Attributes:
        llm: Weights of the language model.
        encoder: Weights of the encoder.
        connector: Weights of Q-Former, projector and all paths so far.
        gradients: Gradients of what is trained.
        optimizer: Moments of AdamW.
        activations: What a batch keeps for the backward pass.
        copies: Copies of weights, and their importance, that the method holds.
        keys_and_values: Cache of a batch of answers.
    """

    llm: int
    encoder: int
    connector: int
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    copies: int = 0
    keys_and_values: int = 0


@dataclass(frozen=True)
class Operations(Summed):
    """Floating-point operations of one sample.

    Attributes:
        encoder: Encoder, forward; in training once for all epochs, as features are kept.
        connector: Connector, forward and in training backward.
        llm: Language model reading the sequence, forward and in training backward.
        decoding: Language model writing the tokens after the first.
    """

    encoder: int
    connector: int
    llm: int
    decoding: int = 0


@dataclass(frozen=True)
class StageCost:
    """What a stage and its path cost.

    Attributes:
        modality: The stage: its modality, or the first of several that are learnt at once.
        others: Number of further modalities that the stage learns.
        features: What the encoder makes of a medium.
        load: The sample that memory and operations are counted for.
        batch_size: Samples held at once.
        trained: Trained parameters.
        full_tuning: Parameters that full tuning of Q-Former and projector trains, or of all of a
            vision LLM, with the query tokens, the input norm and the input projection, which any
            way of learning needs.
        feature_bytes: Cached features of a medium on disk.
        training: Memory of training; None for a path that the base was pretrained with.
        inference: Memory of answering.
        step: Operations of training on one sample; None as above.
        answer: Operations of answering one sample.
    """

    modality: str
    others: int
    features: Features
    load: Workload
    batch_size: int
    trained: Trained
    full_tuning: int
    feature_bytes: int
    training: Memory | None
    inference: Memory
    step: Operations | None
    answer: Operations

    @property
    def label(self) -> str:
        """The stage in few letters."""
        return f"{self.modality} +{self.others}" if self.others else self.modality

    @property
    def reduction(self) -> float:
        """Share of full tuning's parameters that the stage does not train."""
        return 1 - self.trained.total / self.full_tuning


@dataclass(frozen=True)
class Growth:
    """What a path costs that has ``modalities - 1`` predecessors.

    Attributes:
        modalities: Number of paths.
        in_adapters: Its in-adapters.
        gates: Its gates.
        path: All its parameters.
        all_paths: Parameters of all paths together.
        connector_flops: Operations of the connector, relative to no adapters at all.
    """

    modalities: int
    in_adapters: int
    gates: int
    path: int
    all_paths: int
    connector_flops: float


@dataclass(frozen=True)
class Estimate:
    """What a recipe costs.

    Attributes:
        recipe: Its name.
        base: Its base.
        llm_parameters: Parameters of the language model.
        connector_parameters: Parameters of Q-Former and projector.
        stages: Its stages.
        growth: A path of the last stage's shape, with more and more predecessors.
    """

    recipe: str
    base: str
    llm_parameters: int
    connector_parameters: int
    stages: tuple[StageCost, ...]
    growth: tuple[Growth, ...]
