"""A second device without an accelerator: it computes on the CPU and refuses tensors of the CPU.

So a test finds tensors that were left behind, where a model lives on an accelerator.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Torch lets tensors of this device flow through autograd without hardware; nothing else uses it.
FAR = torch.device("meta")
# Values may be copied over, and indices may lie on the CPU, as on CUDA.
MAY_MIX = ("_to_copy", "copy_", "index", "index_put", "index_put_")
# Elsewhere a single number may lie on the CPU.
NEVER = ("embedding", "index_select", "gather", "cat", "stack", "mm", "bmm", "addmm", "lerp")


class FarTensor(Tensor):
    """A tensor whose values are kept on the CPU, out of sight."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        made: FarTensor = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    def tolist(self) -> Any:
        return self.near.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("a tensor must be brought to the CPU first, or numpy(force=True) used")
        return self.near.detach().numpy()

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})


class _Far(TorchDispatchMode):
    """Makes new tensors on the far device, where that is asked for."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})


def _run(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = operator._schema.name.removeprefix("aten::")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    far = [x for x in tensors if isinstance(x, FarTensor)]
    left = [x for x in tensors if not isinstance(x, FarTensor) and (x.ndim or name in NEVER)]
    if far and left and name not in MAY_MIX:
        raise RuntimeError(f"{name} must be given tensors of one device, got {left[0]} left behind")
    device = kwargs.get("device")
    out = operator(*tree_map(_near, args), **tree_map(_near, kwargs))
    if (not far and device != FAR) or device not in (None, FAR):
        return out
    written = [i for i, each in enumerate(operator._schema.arguments) if _is_written(each)]
    if written and any(_is_written(result) for result in operator._schema.returns):
        changed = args[written[0]]
        if torch.Tag.inplace_view in operator.tags:  # its shape changes too
            with torch._C._DisableTorchDispatch():
                operator(*args, **kwargs)
        return changed
    return tree_map(lambda x: FarTensor(x) if isinstance(x, Tensor) else x, out)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _near(value: Any) -> Any:
    if isinstance(value, FarTensor):
        return value.near
    return torch.device("cpu") if isinstance(value, torch.device) and value == FAR else value


def _from_values(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.tensor`` makes its result by none of the operators that a mode sees."""

    def made(values: Any, *, device: Any = None, **others: Any) -> Tensor:
        if device == FAR:
            return FarTensor(make(values, **others))
        return make(values, device=device, **others)

    return made


@contextlib.contextmanager
def far_device() -> Iterator[torch.device]:
    """Within this block there is a far device, to which models and tensors can be moved."""
    before = torch.tensor
    torch.tensor = _from_values(before)
    try:
        with _Far():
            yield FAR
    finally:
        torch.tensor = before
