"""Ways of learning the next modality, one file each; what they have in common is in ``shared``."""

from collections.abc import Collection

from pathweave.methods import (
    adapters,
    eproj,
    ewc,
    independent,
    joint,
    l2,
    lora,
    lwf,
    mera,
    pathweave,
    replay,
    sequential,
    wise_ft,
)
from pathweave.methods.lesson import Method
from pathweave.recipe.schema import Recipe

_ALL = ("Q-Former", "projector")
_EARLIER = "what earlier paths have for themselves"

METHODS: dict[str, Method] = {
    "pathweave": Method(pathweave.learn),
    "adapters": Method(adapters.learn),
    "sequential": Method(sequential.learn, _ALL, shares=True),
    "l2": Method(l2.learn, _ALL, shares=True),
    "wise_ft": Method(wise_ft.learn, _ALL, shares=True),
    "eproj": Method(eproj.learn, ("a projector of its own",)),
    "ewc": Method(ewc.learn, _ALL, shares=True, replays=True),
    "lwf": Method(lwf.learn, _ALL, shares=True),
    "replay": Method(replay.learn, (*_ALL, _EARLIER), shares=True, replays=True),
    "lora": Method(lora.learn, ("a low-rank update of the connector",), shares=True),
    "mera": Method(mera.learn, (*_ALL, _EARLIER), shares=True, replays=True),
    "independent": Method(independent.learn, ("a connector of its own",)),
    "joint": Method(joint.learn, (*_ALL, _EARLIER), shares=True, replays=True, at_once=True),
}


def method_of(recipe: Recipe, name: str) -> Method:
    """Return how a stage learns its modality; the one that makes the base does the same in all."""
    if recipe.training_of(name).connector:
        return Method(pathweave.learn)
    return METHODS[recipe.method.name]


def stages_of(recipe: Recipe, ready: Collection[str] = ()) -> list[tuple[str, ...]]:
    """Return the modalities that each stage learns: one, or after the base all at once.

    Args:
        recipe: The run.
        ready: Modalities that the base was pretrained with.
    """
    names = recipe.curriculum
    if not METHODS[recipe.method.name].at_once:
        return [(name,) for name in names]
    is_base = [recipe.training_of(name).connector or name in ready for name in names]
    count = is_base.index(False) if False in is_base else len(names)
    return [*((name,) for name in names[:count]), *([names[count:]] if names[count:] else [])]
