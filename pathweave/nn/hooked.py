"""Linear layers of foreign modules as hosts.

A forward pass that takes no route as an argument is given one by ``carrying``: for the duration of
one call, in its context alone, hooks at the layers find it. They hold nothing but the name of
their site, so threads and asyncio tasks carry different routes through one module. Without a route
a layer computes what it computed before it was hooked, to the last bit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor, nn

from pathweave.nn.woven import Route, weave


@dataclass
class Carried:
    """What a call takes through foreign modules; it lives for one call, in one context.

    Attributes:
        route: Of the pass that is running.
    """

    route: Route = field(default_factory=Route)


_CARRIED: ContextVar[Carried | None] = ContextVar("carried", default=None)


def carried() -> Carried | None:
    """Return what the running call carries, or None."""
    return _CARRIED.get()


@contextmanager
def carrying(what: Carried | None) -> Iterator[None]:
    """Carry something through the foreign modules that are called inside."""
    token = _CARRIED.set(what)
    try:
        yield
    finally:
        _CARRIED.reset(token)


class SiteHook:
    """A forward hook that weaves a linear layer at its site.

    Args:
        site: Name of the site.
    """

    def __init__(self, site: str):
        self.site = site

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
        """Return the output with the corrections of the carried route; None leaves it as it is."""
        what = _CARRIED.get()
        if what is None or not what.route.runs:
            return None
        return weave(y, args[0], what.route, self.site)


def hook_linear(layer: nn.Linear, site: str) -> None:
    """Make a linear layer of a foreign module a host, unless it is one already."""
    if not any(isinstance(hook, SiteHook) for hook in layer._forward_hooks.values()):
        layer.register_forward_hook(SiteHook(site))


def recompute_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a checkpointed pass and of its recomputation (``context_fn``).

    The latter carries the route of the former. It takes place in ``backward``, after the call and,
    on a GPU, in another thread; and the pass that runs then may have another route.
    """
    what = _CARRIED.get()
    return nullcontext(), carrying(None if what is None else Carried(what.route))
