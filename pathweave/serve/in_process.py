"""The engine of one machine: one thread, one queue, batches of whoever asks.

Prompts that wait are connected and decoded together, whatever their modalities. A caller who comes
while a batch is decoded waits until the batch has ended, or for ``SLICE`` steps: then those that
are not done go on in one batch with the newcomers. What they have said so far is read again, so
nothing of a language model's cache needs to be understood here, and any model will do.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from pathweave.model.generate import search
from pathweave.model.pathweave import PathWeave, context_of
from pathweave.model.prompt import Prompt
from pathweave.model.rank import log_likelihoods
from pathweave.serve.one_thread import OneThread, Row

SLICE = 32  # steps after which newcomers are let in


class InProcess(OneThread):
    """An engine that decodes in a thread of this process.

    Args:
        model: The model; the engine alone calls its language model from now on.
        max_batch: Most answers that are decoded together. Memory grows with it.
        max_waiting: Most callers that wait; one more is refused.

    Attributes:
        steps: Steps that have been decoded, each of one token for every answer of a batch.
    """

    def __init__(self, model: PathWeave, max_batch: int = 16, max_waiting: int = 256) -> None:
        self.steps = 0
        super().__init__(model, max_batch, max_waiting)

    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each choice; see ``Engine``."""
        return await self.call(lambda: log_likelihoods(self.model, [prompt], choices)[0].tolist())

    def serve(self, rows: list[Row]) -> None:
        """Decode a batch until all are answered, or newcomers are let in."""
        lengths = [row.prompt_tokens + len(row.tokens) for row in rows]
        steps = max(row.asked.max_tokens - len(row.tokens) for row in rows)
        context = context_of(self.model.llm.config)
        if context is not None:  # one that has ended is padded while others go on
            steps = min(steps, context - max(lengths))
        search(
            self.model,
            [row.asked.prompt for row in rows],
            steps,
            begun=[tuple(row.tokens) for row in rows],
            choose=_Choosing(rows),
            watch=_Watching(self, rows),
        )

    def lets_in(self, steps: int, rows: list[Row]) -> bool:
        """Return whether a batch stops for newcomers after so many steps."""
        is_full = sum(not row.is_over for row in rows) >= self.max_batch
        return self._closed or (steps >= SLICE and not is_full and not self._waiting.empty())


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
        stops = self._engine.lets_in(self._steps, self._rows)
        return torch.tensor([stops or row.is_over for row in self._rows], device=ids.device)
