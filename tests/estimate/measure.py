"""What torch itself says of a run on real tensors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def measured_flops(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of ``run`` and of the backward pass from the sum of its result, if it has one."""
    # On a CPU the counter knows no fused attention; the plain one is two products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
        forward = counter.get_total_flops()
        if result.requires_grad:
            result.sum().backward()
        return forward, counter.get_total_flops() - forward


def saved_bytes(module: nn.Module, run: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass of ``run``, without the module's weights."""
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())
