"""The engine of one machine: one thread, one queue, batches of whoever asks.

Prompts that wait are connected and decoded together, whatever their modalities. An answer that is
whole leaves its batch at once, and a caller who comes joins one after the step that is running:
what the others have read is held. Language models whose cache is no list of tokens, such as those
with sliding windows, allow no such thing: there a caller waits until the batch has ended, or for
``SLICE`` steps, and what the others have said is read again.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from pathweave.model.generate import begin, go_on, search
from pathweave.model.held import Held
from pathweave.model.laid_out import context_of
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Ids, Prompt
from pathweave.model.rank import log_likelihoods
from pathweave.serve.one_thread import OneThread, Row

SLICE = 32  # steps after which newcomers are let in where what was read cannot be held


class InProcess(OneThread):
    """An engine that decodes in a thread of this process.

    Args:
        model: The model; the engine alone calls its language model from now on.
        max_batch: Most answers that are decoded together. Memory grows with it.
        max_waiting: Most callers that wait; one more is refused.

    Attributes:
        steps: Steps that have been decoded, each of one token for every answer of a batch.
    """

    def __init__(self, model: PathWeave, max_batch: int = 64, max_waiting: int = 256) -> None:
        self.steps = 0
        self._held: Held | None = None
        self._seated: list[Row] = []  # whose rows are held
        super().__init__(model, max_batch, max_waiting)

    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each choice; see ``Engine``."""
        return await self.call(lambda: log_likelihoods(self.model, [prompt], choices)[0].tolist())

    def serve(self, rows: list[Row]) -> None:
        """Read the prompts of newcomers, then decode until someone leaves or may come."""
        if not self.model.prefixes.are_shareable:
            self._serve_slice(rows)
            return
        staying = [row for row in self._seated if row in rows]
        coming = [row for row in rows if row not in staying]
        held, seated = self._held if staying else None, self._seated
        self._held, self._seated = None, []  # after a failure all is read again
        if held:
            held.keep([seated.index(row) for row in staying])
        if coming:
            read = begin(self.model, *_so_far(coming), _Choosing(coming), _Watching(self, coming))
            if held:
                held.join(read)
            else:
                held = read
        seated = [*staying, *coming]
        if held and not any(row.is_over for row in seated):
            latest, steps = [row.tokens[-1] for row in seated], self._steps_left(seated)
            go_on(self.model, held, latest, steps, _Choosing(seated), _Watching(self, seated))
        self._held, self._seated = held, seated

    def _serve_slice(self, rows: list[Row]) -> None:
        prompts, begun = _so_far(rows)
        choose, watch, steps = _Choosing(rows), _Watching(self, rows), self._steps_left(rows)
        search(self.model, prompts, steps, begun=begun, choose=choose, watch=watch)

    def _steps_left(self, rows: list[Row]) -> int:
        steps = max(row.asked.max_tokens - len(row.tokens) for row in rows)
        context = context_of(self.model.llm.config)
        if context is None:
            return steps
        # One that has ended is padded while others go on.
        return min(steps, context - max(row.prompt_tokens + len(row.tokens) for row in rows))

    def is_due(self, steps: int, rows: list[Row]) -> bool:
        """Return whether a batch stops after so many steps, for those who leave or may come."""
        left = sum(not row.is_over for row in rows)
        can_come = left < self.max_batch and self.waiting > 0
        if self.model.prefixes.are_shareable:
            return self._closed or left < len(rows) or can_come
        return self._closed or (steps >= SLICE and can_come)


def _so_far(rows: Sequence[Row]) -> tuple[list[Prompt], list[Ids]]:
    return [row.asked.prompt for row in rows], [tuple(row.tokens) for row in rows]


class _Choosing(LogitsProcessor):
    """Makes the largest logit of a row that wants chance a draw, of that row's own chance."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(
        self, ids: Int[Tensor, "rows _"], logits: Float[Tensor, "rows words"]
    ) -> Float[Tensor, "rows words"]:
        for index, row in enumerate(self._rows):
            if row.asked.temperature > 0 and not row.is_over:
                logits[index] = _drawn(logits[index], row)
        return logits


def _drawn(logits: Float[Tensor, " words"], row: Row) -> Float[Tensor, " words"]:
    """Return logits whose largest is a draw: Gumbel noise is added to those of the nucleus."""
    logits = (logits / row.asked.temperature).log_softmax(-1)
    ordered, order = logits.sort(descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    outside = (before >= row.asked.top_p).scatter(0, order, before >= row.asked.top_p)
    noise = torch.empty(logits.shape).exponential_(generator=row.chance).log().neg()
    return (logits + noise.to(logits.device)).masked_fill(outside, -torch.inf)


class _Watching(StoppingCriteria):
    """Hands each step's tokens to the engine, and ends rows that are answered or left."""

    def __init__(self, engine: InProcess, rows: list[Row]) -> None:
        self._engine = engine
        self._rows = rows
        self._steps = 0

    def __call__(
        self, ids: Int[Tensor, "rows _"], scores: object, **_: object
    ) -> Bool[Tensor, " rows"]:
        self._steps += 1
        self._engine.steps += 1
        for row, token in zip(self._rows, ids[:, -1].tolist(), strict=True):
            if not row.is_over:
                self._engine.heard(row, token)
        stops = self._engine.is_due(self._steps, self._rows)
        return torch.tensor([stops or row.is_over for row in self._rows], device=ids.device)
