"""What a process that only answers does not import, so that its first answer comes sooner.

Transformers imports torch's compiler, tensors that lie on several machines, and scipy, whatever it
is imported for: that takes half of the time until a model can be loaded, and no answer uses them.
"""

import gc
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
MARKS = ("allow_in_graph", "assume_constant_result", "disable")
# What transformers takes from modules that it seldom uses.
SELDOM = {
    f"{COMPILER}._trace_wrapped_higher_order_op": "TransformGetItemToIndex",
    "scipy.optimize": "linear_sum_assignment",
}
SHARED = tuple(
    f"transformers.{name}" for name in ("modeling_utils", "masking_utils", "generation.utils")
)


def import_models_quickly() -> None:
    """Import what all models of transformers share, without what answering does not use.

    What is left out is imported when it is used. Two things differ in this process: functions that
    transformers marks for the compiler are unmarked, and it takes torch for one that knows no other
    machines. Nothing is done where transformers or the compiler is there already, and where a
    transformers wants more of what is left out, it is imported as ever.
    """
    if "transformers" in sys.modules or COMPILER in sys.modules:
        return
    import torch

    stand_ins = {module: ModuleType(module) for module in (COMPILER, *SELDOM)}
    for mark in MARKS:
        setattr(stand_ins[COMPILER], mark, _as_it_is)
    for module, name in SELDOM.items():
        setattr(stand_ins[module], name, _when_called(module, name))
    is_available = torch.distributed.is_available
    gc.disable()  # what is imported stays
    sys.modules |= stand_ins
    torch.distributed.is_available = lambda: False
    try:
        importlib.import_module("transformers.utils").is_torch_distributed_available()  # remembered
        for module in SHARED:
            importlib.import_module(module)
    except (ImportError, AttributeError):
        for module in [m for m in sys.modules if m.partition(".")[0] == "transformers"]:
            del sys.modules[module]
    finally:
        torch.distributed.is_available = is_available
        for module in stand_ins:
            del sys.modules[module]
        gc.freeze()
        gc.enable()


def _as_it_is(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:  # noqa: ANN401
    return _as_it_is if function is None else function


def _when_called(module: str, name: str) -> Callable[..., Any]:
    def call(*args: object, **options: object) -> Any:  # noqa: ANN401
        return getattr(importlib.import_module(module), name)(*args, **options)

    return call
