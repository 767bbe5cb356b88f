"""Floating-point operations, from the shapes of real modules.

Only matrix products are counted, as ``torch.utils.flop_counter`` does: 2 operations for each
multiplication and addition. Norms, activations and softmax are left out (below 1 % at the sizes of
real models). Attention counts the whole square of rows, also where a mask hides half of it; fused
kernels compute the scores once more in the backward pass, which is not counted.

Backward: a layer passes its gradient on to its input, which costs as much as its forward pass;
the gradient of its weight costs as much again and is computed only where the weight is trained. So
a frozen language model costs twice its forward pass in training, not three times.
"""

from dataclasses import dataclass

from torch import nn

from pathweave.estimate.layers import Adapted, linears, qformer_layers
from pathweave.estimate.workload import Workload
from pathweave.model.paths import ModalPath
from pathweave.model.pathweave import PathWeave


@dataclass(frozen=True)
class Flops:
    """Operations of a forward pass and of the backward pass behind it."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.forward * times, self.backward * times)

    @property
    def total(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


def product(rows: int, inner: int, out: int, is_trained: bool) -> Flops:
    """Return the cost of ``[rows, inner] @ [inner, out]``; the right one may be trained."""
    forward = 2 * rows * inner * out
    return Flops(forward, forward * (2 if is_trained else 1))


def attention(rows: int, context: int, dim: int) -> Flops:
    """Return the cost of scores and mixing: two products forward, four backward."""
    forward = 4 * rows * context * dim
    return Flops(forward, 2 * forward)


def connector_flops(model: PathWeave, path: ModalPath, load: Workload, training: bool) -> Flops:
    """Return the cost of one sample from encoder features to soft tokens.

    Args:
        model: The model; what requires gradients is taken to be trained.
        path: The path that reads the medium.
        load: The sample.
        training: Count the columns of gate noise, which exist in training alone.
    """
    total = Flops()
    for linear in linears(model, path, load):
        layer = linear.layer
        total += product(
            linear.rows, layer.in_features, layer.out_features, layer.weight.requires_grad
        )
        if linear.adapted is not None:
            total += _mixture(linear.adapted, linear.rows, layer, training)
    dim = model.qformer.shape.dim
    for block in qformer_layers(model):
        total += attention(load.rows, load.rows, dim)
        if block.cross_attention is not None:
            total += attention(load.queries, load.tokens, dim)
    return total * load.units


def folding_flops(model: PathWeave, path: ModalPath) -> Flops:
    """Return the cost of folding in-adapters into up-projections: once a batch, of any size."""
    total = Flops()
    for linear in linears(model, path, Workload(1, 1, 1, 1, 1)):
        if linear.adapted is not None:
            num_inner = len(linear.adapted.experts.in_adapters)
            for rank in linear.adapted.ranks[:num_inner]:
                # Weight and bias, stacked, times the frozen up-projection.
                forward = 2 * (rank + 1) * rank * linear.layer.out_features
                total += Flops(forward, forward)
    return total


def _mixture(adapted: Adapted, rows: int, host: nn.Linear, training: bool) -> Flops:
    """Return the cost of a path's correction at one host (``nn.Mixture``): two products."""
    is_trained = adapted.experts.adapter.scale.requires_grad
    inward = product(rows, host.in_features, adapted.columns(training), is_trained)
    height = adapted.channels + len(adapted.ranks)
    return inward + product(rows, height, host.out_features, is_trained)
