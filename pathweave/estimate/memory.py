"""Bytes of weights, gradients, optimiser and activations, from the shapes of real modules."""

from torch import nn

from pathweave.estimate.layers import Adapted, linears, qformer_layers
from pathweave.estimate.workload import Workload
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave

FLOAT32 = 4
MOMENTS = 2  # AdamW keeps the mean of gradients and of their squares


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters, each counted once in its own type."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def gradient_bytes(num_trained: int) -> int:
    """Return the bytes of the float32 gradients of so many trained parameters."""
    return num_trained * FLOAT32


def optimizer_bytes(num_trained: int) -> int:
    """Return the bytes of AdamW's two float32 moments of so many trained parameters."""
    return num_trained * FLOAT32 * MOMENTS


def connector_activations(model: PathWeave, path: ModalPath, load: Workload) -> int:
    """Return the bytes that the connector keeps of one sample for the backward pass.

    Assumed are float32, no dropout, and fused attention, which keeps queries, keys, values and its
    output, but no scores. A norm keeps its input, a feed-forward block what goes into its
    activation. A frozen linear layer keeps nothing, a trained one its input. A path keeps at each
    host the host's input and what ``_mixture`` says. Exact within 5 %, see
    ``tests/estimate/test_memory.py``.
    """
    dim, hidden = model.qformer.shape.dim, model.qformer.shape.hidden_dim
    values = 2 * load.tokens * path.spec.encoder_width  # input norm: its input and its output
    values += load.tokens * model.qformer.shape.encoder_width
    values += load.rows * dim  # input of the first norm
    trained = model.qformer.norm.weight.requires_grad
    for layer in qformer_layers(model):
        # Input of the layer; queries, keys, values, output of attention; inputs of the norms.
        values += load.rows * dim * 7 + load.rows * hidden
        if layer.cross_attention is not None:
            values += dim * (3 * load.queries + 2 * load.tokens)
        if trained:
            values += load.rows * (dim + hidden)
    values += load.queries * dim
    for linear in linears(model, path, load):
        if linear.adapted is not None:
            values += linear.rows * _mixture(linear.adapted)
    return values * load.units * FLOAT32


def _mixture(adapted: Adapted) -> int:
    """Return the values that a path keeps of each row of a host, besides the host's input.

    Stacked products, gate weights (and their noise), gate weights by channel, weighted channels:
    see ``nn.Mixture.__call__``.
    """
    num_experts, channels = len(adapted.ranks), adapted.channels
    gate = adapted.experts.gate
    if gate is None:
        return channels + num_experts
    noise = 0 if gate.noise_weight is None else 2 * num_experts
    return adapted.columns(training=True) + num_experts + channels + channels + num_experts + noise


def fused_bytes(model: PathWeave, path: ModalPath) -> int:
    """Return the bytes of the fused matrices of a path, which exist once a batch."""
    values = 0
    for linear in linears(model, path, Workload(1, 1, 1, 1, 1)):
        if linear.adapted is not None:
            height = linear.adapted.channels + len(linear.adapted.ranks)
            values += linear.layer.in_features * linear.adapted.columns(training=True)
            values += linear.layer.out_features * height
    return values * FLOAT32
