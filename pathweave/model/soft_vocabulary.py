"""Soft vocabulary: tokens made of media have ids past those of words.

The language model is called with ids. A hook at its input embedding turns those of media into
vectors, and tells from the same ids which path each token takes. So its own forward pass,
positions, masks, caches and searches see an ordinary sequence, whatever the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from pathweave.errors import RunError
from pathweave.nn import Mixture, Route
from pathweave.nn.hooked import Carried, carried

Scope = Literal["onward", "medium", "prompt"]
"""Tokens that adapters in the language model correct: those of the medium and all after them; those
of the medium; those of the whole prompt and its answer."""


class Ride(Carried):
    """The media of one call of the language model, as vectors, and the paths that they take.

    Args:
        first: Id of the first of their tokens.
        vectors: Their tokens, in the order of their ids.
        path_of: For each the index of its path.
        mixtures: For each path its experts inside the language model; empty if it has none.
        scopes: For each path the tokens that those correct.
        names: Of the paths.
    """

    def __init__(
        self,
        first: int,
        vectors: Float[Tensor, "soft dim"],
        path_of: Sequence[int],
        mixtures: Sequence[Mapping[str, Mixture]] = (),
        scopes: Sequence[Scope] = (),
        names: Sequence[str] = (),
    ):
        super().__init__()
        self.names = names
        self.first = first
        self.vectors = vectors
        self.mixtures = mixtures
        self.is_woven = any(mixtures)
        # Media of paths without experts here do not decide which path a token takes.
        self._path_of = torch.tensor([i if mixtures[i] else -1 for i in path_of] or [-1])
        reach = [scope if mixtures[i] else "" for i, scope in enumerate(scopes)]
        self._goes_on = torch.tensor([reach[i] in ("onward", "prompt") for i in path_of] or [False])
        self._is_whole = torch.tensor([reach[i] == "prompt" for i in path_of] or [False])
        self._read: Int[Tensor, " rows"] | None = None  # latest deciding token of each row so far
        self.soft: Int[Tensor, "batch tokens"] | None = None
        self.known: Int[Tensor, "batch tokens"] | None = None  # ids of the first pass, on the host

    def board(self, ids: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
        """Set the route of a pass that reads ``ids``, and return them with 0 for media.

        Raises:
            RunError: If an id is neither a word's nor one of these media's.
        """
        self.soft = ids - self.first
        # Where the ids are known on the host, nobody waits for the device.
        host = self.known if self.known is not None and self.known.shape == ids.shape else ids
        check_ids(host, self.first + len(self.vectors))
        if self.is_woven:
            self.route = self._route(host.to(self._path_of.device) - self.first, ids.device)
        return ids.masked_fill(self.soft >= 0, 0)

    def embed(self, words: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """Return the embeddings of the pass, given those of its words."""
        soft = cast(Tensor, self.soft)
        if not len(self.vectors):
            return words
        vectors = self.vectors[soft.clamp(min=0)].to(words)
        return torch.where((soft >= 0)[..., None], vectors, words)

    def _route(self, soft: Int[Tensor, "batch tokens"], device: torch.device) -> Route:
        is_soft, at = soft >= 0, soft.clamp(min=0)
        deciding = torch.where(is_soft & self._goes_on[at], soft, -1)
        before = self._before(deciding)
        # Ids of media grow within a row: the latest is the largest so far.
        latest = torch.cat([before[:, None], deciding], dim=1).cummax(dim=1).values[:, 1:]
        self._read = last = latest[:, -1]
        of_row = torch.where((last >= 0) & self._is_whole[last.clamp(min=0)], last, -1)[:, None]
        taken = torch.where(latest >= 0, latest, of_row)
        taken = torch.where(is_soft & (self._path_of[at] >= 0), soft, taken)
        path = torch.where(taken >= 0, self._path_of[taken.clamp(min=0)], -1).flatten()
        runs = []
        for index, mixtures in enumerate(self.mixtures):
            chosen = (path == index).nonzero()[:, 0]
            if mixtures and len(chosen):
                # All tokens, as in most passes of one path: nothing need be picked out.
                takers = len(soft) if len(chosen) == len(path) else chosen.to(device)
                runs.append((mixtures, takers))
        return Route(tuple(runs), tokens=soft.shape[1])

    def taken_next(self) -> list[int] | None:
        """Return for each row the index of the path that its next token takes, or -1.

        None is returned if no path has experts inside the language model.
        """
        if self._read is None:
            return None
        path = self._path_of[self._read.clamp(min=0)]
        return cast(list[int], torch.where(self._read >= 0, path, -1).tolist())

    def take_up(self, does_go_on: Sequence[bool]) -> None:
        """Start as if each row had read the token of these media that has its number, or none."""
        read = torch.arange(len(does_go_on))
        self._read = torch.where(torch.tensor(does_go_on), read, -1)

    def _before(self, deciding: Int[Tensor, "batch tokens"]) -> Int[Tensor, " batch"]:
        """Return the latest deciding token that each row has read in earlier passes, or -1."""
        rows = len(deciding)
        if self._read is None or rows % len(self._read):
            return deciding.new_full((rows,), -1)
        before = self._read.repeat_interleave(rows // len(self._read))  # beams, or choices
        # A token that is read once more says that the sequence begins anew: there is no cache.
        again = (deciding >= 0) & (deciding <= before[:, None])
        return torch.where(again.any(1), -1, before)


def first_soft_id(llm: PreTrainedModel, words: int) -> int:
    """Return the first id that no word has, given the size of the tokenizer.

    A table, or the head, may have rows that the tokenizer does not know: the model might say one.
    """
    table = cast(nn.Embedding, llm.get_input_embeddings())
    head = llm.get_output_embeddings()
    said = getattr(head, "out_features", 0) if head is not None else 0
    return max(table.num_embeddings, int(said), words)


def hook_embeddings(llm: PreTrainedModel) -> None:
    """Let a language model read ids of media, in calls that carry a ``Ride``.

    Tables of other kinds that it looks words up in take a medium's token for a padding.
    """
    main = llm.get_input_embeddings()
    for module in llm.get_decoder().modules():
        is_hooked = any(isinstance(h, _Boarding | _Masking) for h in _pre_hooks(module))
        if isinstance(module, nn.Embedding) and module is not main and not is_hooked:
            module.register_forward_pre_hook(_Masking())
    if not any(isinstance(hook, _Boarding) for hook in _pre_hooks(main)):
        main.register_forward_pre_hook(_Boarding())
        main.register_forward_hook(_embed)


def _pre_hooks(module: nn.Module) -> list[object]:
    return list(module._forward_pre_hooks.values())


class _Boarding:
    def __call__(self, table: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        ride, ids = carried(), args[0]
        if isinstance(ride, Ride) and ids.ndim == 2:
            return (ride.board(ids), *args[1:])
        check_ids(ids, cast(nn.Embedding, table).num_embeddings)
        return None


class _Masking:
    def __call__(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        ride, ids = carried(), args[0] if args else None
        if not isinstance(ride, Ride) or not isinstance(ids, Tensor):
            return None
        # Tables of places are looked up by other things than the ids of the call.
        soft = ride.soft
        if soft is None or ids.shape != soft.shape or ids.is_floating_point():
            return None
        return (ids.masked_fill((soft >= 0) & (ids >= ride.first), 0), *args[1:])


def _embed(_: nn.Module, args: tuple[Any, ...], words: Tensor) -> Tensor | None:
    ride = carried()
    if not isinstance(ride, Ride) or args[0].ndim != 2:
        return None
    return ride.embed(words)


def check_ids(ids: Int[Tensor, "..."], limit: int) -> None:
    """Refuse ids that nothing stands behind.

    Raises:
        RunError: If one is not below ``limit``.
    """
    if not ids.is_meta and ids.numel() and (found := int(ids.max())) >= limit:
        raise RunError(
            f"an id must be that of a word or of a medium's token in this call, below {limit:,}, "
            f"got {found:,}; ask the model through PathWeave, which takes the media along"
        )
