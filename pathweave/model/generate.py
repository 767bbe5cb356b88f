"""Answers to prompts, in batches that may mix paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from pathweave.model.held import Held
from pathweave.model.laid_out import pad
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Ids, Prompt
from pathweave.model.soft_vocabulary import Ride
from pathweave.nn.hooked import carrying


def generate(
    model: PathWeave,
    prompts: Sequence[Prompt],
    max_tokens: int = 32,
    beams: int = 1,
    min_tokens: int = 0,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
) -> list[str]:
    """Return the most likely answer to each prompt, by greedy or beam search.

    Args:
        model: The model; call ``model.eval()`` first.
        prompts: Text and encoded media.
        max_tokens: Longest answer, in tokens.
        beams: Beams of the search; 1 is greedy.
        min_tokens: Shortest answer, in tokens.
        length_penalty: Power of its length by which a beam's log-likelihood is divided.
        repetition_penalty: Positive logits of tokens that are in the answer already are divided by
            it, negative ones multiplied; 1 changes nothing.

    Raises:
        PathError: If a medium names a path that the model does not have.
        RunError: If a prompt and ``max_tokens`` more are longer than the language model's context.
    """
    if not prompts:
        return []
    ids = search(
        model,
        prompts,
        max_tokens,
        penalty=repetition_penalty,
        min_new_tokens=min_tokens or None,
        num_beams=beams,
        length_penalty=length_penalty,
    )
    return [spoken(model, row)[0] for row in ids]


def spoken(
    model: PathWeave, ids: list[int] | Int[Tensor, " answer"], stop: Sequence[str] = ()
) -> tuple[str, bool]:
    """Return the answer that tokens spell, up to what closes it, and whether that is among them.

    Args:
        model: The model.
        ids: The tokens.
        stop: Words that close an answer beside those of the base.
    """
    text = cast(str, model.base.tokenizer.decode(ids, skip_special_tokens=True))
    ends = [end for end in (model.base.template.end.strip(), *stop) if end]
    cut = min((text.split(end)[0] for end in ends), key=len, default=text)
    return cut.strip(), len(cut) < len(text)


def search(
    model: PathWeave,
    prompts: Sequence[Prompt],
    max_tokens: int,
    begun: Sequence[Ids] = (),
    penalty: float = 1.0,
    choose: LogitsProcessor | None = None,
    watch: StoppingCriteria | None = None,
    **settings: Any,  # noqa: ANN401 (they are transformers')
) -> Int[Tensor, "rows new"]:
    """Return the tokens that go on from each prompt; rows that end early are padded.

    Args:
        model: The model.
        prompts: Text and encoded media.
        max_tokens: Most tokens that are added.
        begun: For each prompt the tokens of its answer that are there already; () if none has any.
        penalty: See ``repetition_penalty`` of ``generate``.
        choose: Changes the logits of each step; the token of the largest is taken.
        watch: Is given the ids after each step, and says which rows have ended.
        settings: Of ``generate`` of transformers, such as the number of beams.
    """
    start = _read(model, prompts, max_tokens, begun)
    if start.cache is not None:
        start.cache.batch_repeat_interleave(settings.get("num_beams", 1))
    processors = [] if choose is None else [choose]
    if penalty != 1:
        length = start.ids.shape[1]
        processors.append(RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=length))
    return _say(model, start, max_tokens, processors, watch, **settings)


def begin(
    model: PathWeave,
    prompts: Sequence[Prompt],
    begun: Sequence[Ids],
    choose: LogitsProcessor,
    watch: StoppingCriteria,
) -> Held:
    """Read prompts, say one token to each, and return what was read, to go on from.

    For models all of whose layers attend to everything before (``Prefixes.are_shareable``). The
    arguments are those of ``search``.
    """
    start = _read(model, prompts, 1, begun)
    if start.cache is None:
        start.cache = DynamicCache()
    _say(model, start, 1, [choose], watch)
    ride = start.ride
    taken = ride.taken_next() or [-1] * len(prompts)
    return Held(start.cache, start.mask, [ride.names[i] if i >= 0 else None for i in taken])


def go_on(
    model: PathWeave,
    held: Held,
    latest: Sequence[int],
    max_tokens: int,
    choose: LogitsProcessor,
    watch: StoppingCriteria,
) -> None:
    """Say more tokens to rows that are held, at most so many, and hold what is read for it.

    Args:
        model: The model.
        held: The rows.
        latest: For each the latest token that it has said.
        max_tokens: Most tokens that are added.
        choose: See ``search``.
        watch: See ``search``; a row that has ended is held with padding and must leave.
    """
    ids = F.pad(torch.tensor(latest)[:, None], (held.mask.shape[1], 0)).to(model.device)
    mask = F.pad(held.mask, (0, 1), value=1)
    start = _Start(ids, mask, held.cache, model.ride_on(held.paths), {})
    said = _say(model, start, max_tokens, [choose], watch)
    held.mask = F.pad(held.mask, (0, said.shape[1]), value=1)


@dataclass
class _Start:
    """Where a search starts from: all ids, of which the cache holds the first ones already."""

    ids: Int[Tensor, "rows tokens"]
    mask: Int[Tensor, "rows tokens"]
    cache: DynamicCache | None
    ride: Ride
    beside: dict[str, Tensor]


@torch.no_grad()
def _read(
    model: PathWeave, prompts: Sequence[Prompt], max_tokens: int, begun: Sequence[Ids]
) -> _Start:
    counts = [len(row) for row in begun or [()] * len(prompts)]
    prefilled = model.prefill(prompts, [count + max_tokens for count in counts])
    rows = prefilled.remainder
    if begun:
        answers = [torch.tensor(row, dtype=torch.long) for row in begun]
        rows = [torch.cat(pair) for pair in zip(rows, answers, strict=True)]
    ids, mask = pad(rows, side="left")
    mask = torch.cat([prefilled.mask, mask.to(model.device)], dim=1)
    # What the cache holds is cut off again.
    ids = F.pad(ids, (mask.shape[1] - ids.shape[1], 0)).to(model.device)
    laid_out = prefilled.laid_out
    beside = laid_out.beside("left", model.device, model.base.after_prompt, counts)
    return _Start(ids, mask, prefilled.cache, laid_out.ride, beside)


@torch.no_grad()
def _say(
    model: PathWeave,
    start: _Start,
    max_tokens: int,
    processors: list[LogitsProcessor],
    watch: StoppingCriteria | None,
    **settings: Any,  # noqa: ANN401 (they are transformers')
) -> Int[Tensor, "rows new"]:
    tokenizer = model.base.tokenizer
    with carrying(start.ride):
        whole = model.llm.generate(  # type: ignore[operator]
            input_ids=start.ids,
            attention_mask=start.mask,
            cache=start.cache,
            max_new_tokens=max_tokens,
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([] if watch is None else [watch]),
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else None,
            **start.beside,
            **settings,
        )
    return whole[:, start.ids.shape[1] :]
