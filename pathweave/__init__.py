"""PathWeave: add senses to a pretrained vision language model, one at a time.

``load`` returns an ``Assistant`` over a run; ``PathWeave`` is the model; ``pathweave.nn`` holds
Adapter-in-Adapter as tensor maths.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathweave.model.pathweave import PathWeave
    from pathweave.runs.assistant import Assistant, load

__version__ = "0.1.0"
__all__ = ["Assistant", "PathWeave", "load"]

_HOMES = {"Assistant": "runs.assistant", "load": "runs.assistant", "PathWeave": "model.pathweave"}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Imported when asked for: torch and transformers take seconds, the command line's help none.
    if name not in _HOMES:
        raise AttributeError(f"module 'pathweave' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pathweave.{_HOMES[name]}"), name)
