"""What a frozen language model costs: operations, activations, cache of keys and values."""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from pathweave.estimate.flops import Flops, attention, product
from pathweave.estimate.workload import Workload

FLOAT32 = 4


@dataclass(frozen=True)
class LanguageModel:
    """Sizes of a decoder-only language model, read from its modules and its configuration.

    Attributes:
        matrices: Elements of all weight matrices but embeddings and head.
        head: Elements of the head.
        vocab_size: Rows of the head.
        num_layers: Number of layers.
        attention_dim: Width of all heads of queries together.
        key_dim: Width of all heads of keys together; smaller with grouped queries.
        hidden_dim: Width inside the feed-forward blocks.
        is_gated: Whether a feed-forward block multiplies two projections (Llama) or has one (OPT).
        norm_bytes: What all layer norms keep of a token for the backward pass.
        bytes_each: Bytes of a weight and of an activation.
    """

    matrices: int
    head: int
    vocab_size: int
    num_layers: int
    attention_dim: int
    key_dim: int
    hidden_dim: int
    is_gated: bool
    norm_bytes: int
    bytes_each: int

    @classmethod
    def of(cls, llm: PreTrainedModel) -> "LanguageModel":
        """Read the sizes; the model may be on the meta device."""
        config: Any = llm.config.get_text_config()
        num_heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
        body = [
            module
            for module in cast(nn.Module, llm.base_model).modules()
            if isinstance(getattr(module, "weight", None), Tensor)
            and not isinstance(module, nn.Embedding)
        ]
        matrices = [cast(Tensor, module.weight) for module in body if module.weight.ndim == 2]
        norms = [module for module in body if module.weight.ndim == 1]
        hidden = max(max(weight.shape) for weight in matrices)
        head = cast(nn.Linear, llm.get_output_embeddings()).weight
        return cls(
            matrices=sum(weight.numel() for weight in matrices),
            head=head.numel(),
            vocab_size=head.shape[0],
            num_layers=config.num_hidden_layers,
            attention_dim=num_heads * head_dim,
            key_dim=(getattr(config, "num_key_value_heads", None) or num_heads) * head_dim,
            hidden_dim=hidden,
            is_gated=sum(w.shape[0] == hidden for w in matrices) > config.num_hidden_layers,
            norm_bytes=sum(_norm_bytes(module, head.element_size()) for module in norms),
            bytes_each=head.element_size(),
        )

    def read(self, length: int, predicted: int, past: int = 0) -> Flops:
        """Return the cost of reading ``length`` tokens behind ``past`` cached ones.

        Args:
            length: Tokens read.
            predicted: Positions at which the head is applied.
            past: Tokens whose keys and values are cached.
        """
        body = product(length, self.matrices, 1, is_trained=False)
        heads = attention(length, past + length, self.attention_dim) * self.num_layers
        return body + heads + product(predicted, self.head, 1, is_trained=False)

    def training(self, load: Workload) -> Flops:
        """Return the cost of one sample's loss and of its gradient to the soft tokens."""
        return self.read(load.sequence, load.answer)

    def prefill(self, load: Workload) -> int:
        """Return the cost of reading the prompt and predicting the first token."""
        return self.read(load.prompt, 1).forward

    def decode(self, load: Workload) -> int:
        """Return the cost of the other tokens of a greedy answer; beams multiply it."""
        steps = range(load.prompt, load.prompt + load.answer - 1)
        return sum(self.read(1, 1, past).forward for past in steps)

    def activations(self, load: Workload) -> int:
        """Return the bytes that one sample keeps for the backward pass to the soft tokens.

        A frozen linear layer keeps nothing. A layer keeps the inputs of its norms (in float32 for
        the RMS norm of transformers), queries, keys, values and the output of fused attention, and
        of the feed-forward block the input of the activation and, if gated, both factors. The loss
        keeps the logits of the answer in float32, as they are and normalised. Exact within 5 % for
        Llama; an approximation for other designs. A batch of unequal lengths repeats grouped keys.
        """
        feed_forward = self.hidden_dim * (3 if self.is_gated else 1)
        width = 2 * self.attention_dim + 2 * self.key_dim + feed_forward
        token = self.norm_bytes + self.num_layers * width * self.bytes_each
        return load.sequence * token + load.answer * self.vocab_size * FLOAT32

    def keys_and_values(self, load: Workload) -> int:
        """Return the bytes of the cache of keys and values at the end of one answer."""
        return 2 * self.key_dim * self.num_layers * load.sequence * self.bytes_each


def _norm_bytes(norm: nn.Module, bytes_each: int) -> int:
    is_rms = getattr(norm, "bias", None) is None
    return cast(Tensor, norm.weight).numel() * (FLOAT32 if is_rms else bytes_each)
