"""A run of real modules on tensors of shapes: its operations, and what it holds in memory.

Matrix products and convolutions are counted as ``torch.utils.flop_counter`` does: 2 operations for
each multiplication and addition. Norms, activations and softmax are left out (below 1 % at the
sizes of real models). Attention counts the whole square of rows, also where a mask hides half of
it; fused kernels compute the scores once more in the backward pass, which is not counted.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

Key = tuple[object, ...]
Made = Tensor | tuple[Tensor, ...]
aten = torch.ops.aten
# Their schema does not say that what they return shares memory with what they are given.
_ALIASING = {aten._unsafe_view.default, aten._to_copy.default, aten.lift_fresh.default}


class Meter(TorchDispatchMode):
    """Counts the operations of what runs inside it on the meta device.

    Models repeat themselves, and torch works out the shape of a result by Python, slowly: so what
    an operator made of the same shapes before is made again. A question about the values of shapes,
    such as whether all of a mask counts, is answered yes.

    Attributes:
        flops: Operations so far.
    """

    _known: ClassVar[dict[Key, tuple[int, Made]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._substitutes = _Substitutes()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here, and to keep the compiler out of every operator takes longer
        # than the operator.
        return False

    def __enter__(self) -> "Meter":
        self._substitutes.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)
        self._substitutes.__exit__(*reason)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operator and count it."""
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return True
        key = (func, _key(args), _key(tuple(kwargs.items()))) if _is_pure(func) else None
        if key is not None and key in self._known:
            flops, known = self._known[key]
            self.flops += flops
            return _alike(known)
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=out)
        self.flops += flops
        if key is not None and _is_made(out):
            self._known[key] = flops, _alike(out)
        return out


class MixedMeter(Meter):
    """A meter of networks that look at values of their inputs: these are real, weights are shapes.

    What is made of weights is a shape too, and so is whatever it is joined with.
    """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operator and count it."""
        given = args, kwargs or {}
        if any(isinstance(each, Tensor) and each.is_meta for each in tree_leaves(given)):
            if func is aten.index.Tensor:  # how many places a mask marks is in its values alone
                given = ((args[0], _places(args[1])), {})
            given = tree_map_only(Tensor, lambda each: each.to("meta"), given)
        return super().__torch_dispatch__(func, types, *given)


def _places(index: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return an index whose masks are numbers of places."""
    places: list[Tensor | None] = []
    for each in index:
        if each is not None and each.dtype == torch.bool and not each.is_meta:
            places += each.nonzero().unbind(1)
        else:
            places.append(each)
    return places


@cache
def _is_pure(func: Any) -> bool:  # noqa: ANN401
    """Return whether an operator makes new tensors and changes none."""
    schema = func._schema
    aliases = any(each.alias_info for each in (*schema.arguments, *schema.returns))
    return not aliases and func not in _ALIASING


def _key(value: object) -> object:
    """Return what a result depends on: of tensors not their values."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(map(_key, value))
    return type(value), value


def _is_made(out: object) -> bool:
    outs = out if isinstance(out, tuple) else (out,)
    return all(isinstance(each, Tensor) and each.is_meta for each in outs)


def _alike(made: Made) -> Made:
    """Return new tensors of the same shapes."""
    if isinstance(made, Tensor):
        return torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device="meta")
    return tuple(
        torch.empty_strided(m.shape, m.stride(), dtype=m.dtype, device="meta") for m in made
    )


@contextlib.contextmanager
def shapes() -> Iterator[None]:
    """Modules and tensors made inside it hold no numbers: they are on the meta device."""
    with torch.device("meta"), _Substitutes():
        yield


class _Substitutes(TorchFunctionMode):
    """Does otherwise what would be done step by step, or for nothing, on shapes."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        # To draw random numbers takes its time even where there are none.
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_: object,
    **__: object,
) -> Tensor:
    return _Fused.apply(query, key, value, attn_mask)


class _Fused(torch.autograd.Function):
    """Attention that keeps its inputs, its output and a number a row: two products, then four."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: Float[Tensor, "batch heads rows dim"],
        key: Float[Tensor, "batch heads_kv tokens dim"],
        value: Float[Tensor, "batch heads_kv tokens out"],
        mask: Tensor | None,
    ) -> Float[Tensor, "batch heads rows out"]:
        out = query @ _repeated(key, query).mT @ _repeated(value, query)
        # Fused kernels write heads side by side, so that joining them makes no copy.
        out = out.transpose(1, 2).contiguous().transpose(1, 2)
        ctx.save_for_backward(query, key, value, out, out.new_empty(out.shape[:-1]).float(), mask)
        return out

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        grad: Tensor,
    ) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        keys, values = _repeated(key, query), _repeated(value, query)
        scores = query.new_empty(*query.shape[:-1], key.shape[-2])
        to_values, to_scores = scores.mT @ grad, grad @ values.mT
        to_query, to_keys = to_scores @ keys, to_scores.mT @ query
        return to_query, _summed(to_keys, key), _summed(to_values, value), None


def _repeated(shared: Tensor, query: Tensor) -> Tensor:
    """Return keys or values once for each head of queries that reads them."""
    return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)


def _summed(gradient: Tensor, shared: Tensor) -> Tensor:
    return gradient.unflatten(1, (shared.shape[1], -1)).sum(2)


class Saved(saved_tensors_hooks):
    """Sees what autograd keeps for the backward pass of what runs inside it.

    Args:
        module: Its parameters and buffers are held anyway, and not counted.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        held = [*module.parameters(), *module.buffers()]
        self._held = {tensor.untyped_storage()._cdata for tensor in held}
        # The storages themselves: the place of one that is gone would be given to another.
        self._kept: dict[int, torch.UntypedStorage] = {}

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._kept[storage._cdata] = storage
        return tensor

    def __enter__(self) -> "Saved":  # type: ignore[override]
        super().__enter__()
        return self

    @property
    def num_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(kept.nbytes() for place, kept in self._kept.items() if place not in self._held)


def size(*modules: nn.Module) -> int:
    """Return the number of parameters of modules."""
    return sum(p.numel() for module in modules for p in module.parameters())


def weight_bytes(*modules: nn.Module) -> int:
    """Return the bytes of all parameters, each counted once in its own type."""
    unique = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.nbytes for p in unique.values())
