"""Prompts laid out for the language model: ids, what runs beside them, and what it has read.

Also the two questions asked of a layout: whether it fits, and how rows of it are padded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PretrainedConfig

from pathweave.model.prompt import Ids
from pathweave.model.soft_vocabulary import Ride


@dataclass(frozen=True)
class LaidOut:
    """Prompts as ids of words and of the tokens of media.

    Attributes:
        rows: Of each prompt the ids before its first medium, and the rest. All of a prompt without
            media is the rest.
        ride: The media, which calls of the language model with these ids must carry.
        alongside: Of each prompt what runs along its tokens beside the ids, by the name under which
            the language model takes it.
        inputs: What the base's own processor made of the media that it reads by itself.
    """

    rows: list[tuple[Ids, Ids]]
    ride: Ride
    alongside: list[dict[str, Tensor]]
    inputs: dict[str, Tensor]

    def beside(
        self, side: str, device: torch.device, then: Mapping[str, int], answers: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """Return what goes into the language model beside ids and mask.

        Args:
            side: Side of the padding.
            device: Where to.
            then: What the tokens of answers are marked with, by name.
            answers: Number of tokens that follow each prompt. What ``then`` does not name is marked
                as the last token of the prompt.
        """
        marks: dict[str, Tensor] = {}
        for name in self.alongside[0] if self.alongside else ():
            rows = [row[name] for row in self.alongside]
            for i, count in enumerate(answers):
                last = (
                    rows[i][-1:] if name not in then else torch.full_like(rows[i][-1:], then[name])
                )
                rows[i] = torch.cat([rows[i], last.expand(count, *last.shape[1:])])
            marks[name] = pad(rows, side)[0]
        return {name: tensor.to(device) for name, tensor in (marks | self.inputs).items()}


@dataclass(frozen=True)
class Prefilled:
    """Prompts whose first tokens the language model has read.

    Attributes:
        cache: Keys and values of those tokens; None if there are none.
        mask: Which of the cache's columns count (1).
        remainder: Ids of the rest of each prompt, on the host.
        laid_out: The prompts, with the media that the language model must carry to read on.
        by_itself: Whether the language model finds the places of its tokens by itself, as one does
            that reads media by itself and places them otherwise than words.
    """

    cache: DynamicCache | None
    mask: Int[Tensor, "batch prefix"]
    remainder: list[Int[Tensor, " _"]]
    laid_out: LaidOut
    by_itself: bool

    def decoder_inputs(self, mask: Int[Tensor, "batch tokens"]) -> dict[str, Any]:
        """Return what the language model must be told to read on, given where new tokens count."""
        whole = torch.cat([self.mask, mask], dim=1)
        if self.by_itself:
            return {"attention_mask": whole, "use_cache": False}
        # Padding takes no position, so a row's tokens have the positions they would have alone.
        positions = (whole.cumsum(1) - 1).clamp(min=0)
        return {
            "attention_mask": whole,
            "position_ids": positions[:, self.mask.shape[1] :],
            "cache": self.cache,
            "use_cache": self.cache is not None,
        }


def context_of(config: PretrainedConfig) -> int | None:
    """Return the most tokens that a language model can read; None where it says none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def too_long(prompt: int, answer: int, context: int | None) -> str | None:
    """Return why a prompt and an answer of so many tokens cannot be read, else None.

    Example:
        >>> too_long(100, 28, context=128) is None
        True
    """
    if context is None or prompt + answer <= context:
        return None
    return (
        f"a prompt and its answer must have at most {context:,} tokens, the context of the "
        f"language model, got {prompt:,} and {answer:,}; shorten the text or the answer, give "
        "fewer frames, or name a language model with a longer context"
    )


def pad(
    rows: Sequence[Shaped[Tensor, "_ ..."]], side: str
) -> tuple[Shaped[Tensor, "batch tokens ..."], Int[Tensor, "batch tokens"]]:
    """Stack sequences of unequal length with zeros on one side, and say where they count (1)."""
    ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    mask = pad_sequence(ones, batch_first=True, padding_side=side)
    return pad_sequence(list(rows), batch_first=True, padding_side=side), mask
