"""What a process that only answers does not import, so that its first answer comes sooner.

Transformers imports torch's compiler, tensors that lie on several machines, and scipy, whatever it
is imported for: that takes half of the time until a model can be loaded, and no answer uses them.
"""

import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
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
    have been marked for the compiler by then are unmarked, and transformers takes torch for one
    that knows no other machines. Nothing is done where transformers is there already.
    """
    if "transformers" in sys.modules or COMPILER in sys.modules:
        return
    import torch

    sys.modules[COMPILER] = _Compiler(COMPILER)
    seldom = {module: ModuleType(module) for module in SELDOM}
    for module, name in SELDOM.items():
        setattr(seldom[module], name, _when_called(module, name))
    is_available = torch.distributed.is_available
    gc.disable()  # what is imported stays
    sys.modules |= seldom
    torch.distributed.is_available = lambda: False
    try:
        importlib.import_module("transformers.utils").is_torch_distributed_available()  # remembered
        for module in SHARED:
            importlib.import_module(module)
    finally:
        torch.distributed.is_available = is_available
        for module in seldom:
            del sys.modules[module]
        gc.freeze()
        gc.enable()


class _Compiler(ModuleType):
    """Stands for torch's compiler until more of it is used than marks, which say nothing here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = [str(Path(sys.modules["torch"].__path__[0], "_dynamo"))]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the compiler has)
        if name.startswith("__"):
            raise AttributeError(name)
        if name in MARKS:
            return _as_it_is
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)


def _as_it_is(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:  # noqa: ANN401
    return _as_it_is if function is None else function


def _when_called(module: str, name: str) -> Callable[..., Any]:
    def call(*args: object, **options: object) -> Any:  # noqa: ANN401
        return getattr(importlib.import_module(module), name)(*args, **options)

    return call
