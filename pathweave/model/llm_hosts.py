"""Linear layers of a language model that paths may adapt."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from pathweave.errors import RecipeError
from pathweave.nn.hooked import recompute_contexts

PREFIX, TAIL = "llm/", "tail"
# A router's choice of experts is no map that a correction could be added to in small steps; keys
# and values of cross-attention are made of other tokens than those that take a path.
_NO_HOST = re.compile(r"(^|_)(gate|router|gating)$|^cross_att")
# What later tokens read of an earlier one: its keys and values, or its share in a state.
_READ_LATER = re.compile(r"(^|_)(k|v|kv|qkv|key|value|in)(_|$)")


def llm_linears(llm: PreTrainedModel) -> dict[str, nn.Linear]:
    """Return the layers by site, such as ``llm/layers/0/self_attn/q_proj``, in order.

    These are the linear layers inside the decoder's layers, but no routers, and none that attend to
    what is no token of the sequence. Heads, towers and what joins them are outside.
    """
    decoder = cast(nn.Module, llm.get_decoder())
    stacks = [name for name, child in decoder.named_children() if isinstance(child, nn.ModuleList)]
    return {
        PREFIX + name.replace(".", "/"): layer
        for name, layer in decoder.named_modules()
        if isinstance(layer, nn.Linear)
        and name.startswith(tuple(f"{stack}." for stack in stacks))
        and not any(_NO_HOST.search(part) for part in name.split("."))
    }


def decoder_layers(llm: PreTrainedModel) -> list[nn.Module]:
    """Return the layers of a language model's decoder, in order."""
    stacks = cast(nn.Module, llm.get_decoder()).children()
    return [layer for stack in stacks if isinstance(stack, nn.ModuleList) for layer in stack]


def tail_linears(tail: nn.Module | None) -> dict[str, nn.Linear]:
    """Return the linear layers of a frozen tail by site, such as ``tail/linear_1``, in order."""
    named = [] if tail is None else tail.named_modules()
    return {
        "/".join([TAIL, *name.split(".")]).rstrip("/"): layer
        for name, layer in named
        if isinstance(layer, nn.Linear)
    }


def dead_sites(sites: list[str]) -> set[str]:
    """Return the sites that no answer depends on where only a medium's tokens are corrected.

    In the last layer a token is read by later ones through its keys and values alone.
    """
    numbered = [(int(found[1]), s) for s in sites if (found := re.search(r"/(\d+)/", s))]
    last = max((number for number, _ in numbered), default=None)
    return {
        site
        for number, site in numbered
        if number == last and not _READ_LATER.search(site.rsplit("/", 1)[-1])
    }


@contextmanager
def recomputed(llm: PreTrainedModel) -> Iterator[None]:
    """Inside, layers of a language model keep their inputs alone for the backward pass.

    What they make of them is computed once more there, with the same route. Transformers would do
    so in training mode alone, in which frozen layers drop out what they should keep.

    Raises:
        RecipeError: If the language model has no layers that can be computed again.
    """
    found = cast(nn.Module, llm.get_decoder()).modules()
    layers: list[Any] = [m for m in found if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise RecipeError(
            "training.checkpointing must go with a language model whose layers transformers can "
            f"checkpoint, got {type(llm).__name__}; set it to false"
        )
    for layer in layers:
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, context_fn=recompute_contexts
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def summary(sites: list[str]) -> str:
    """Return the names of sites with layers counted together, for messages.

    Example:
        >>> summary(["llm/layers/0/mlp/up", "llm/layers/1/mlp/up", "layer_0/query", "projector"])
        'llm/layers/*/mlp/up, layer_*/query, projector'
    """
    return ", ".join(dict.fromkeys(re.sub(r"(?<=[/_])\d+/", "*/", site) for site in sites))
