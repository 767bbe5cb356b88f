"""The engine of one machine: one thread, one queue, batches of whoever asks.

Prompts that wait are connected and decoded together, whatever their modalities. A caller who comes
while a batch is decoded waits until the batch has ended, or for ``SLICE`` steps: then those that
are not done go on in one batch with the newcomers. What they have said so far is read again, so
nothing of a language model's cache needs to be understood here, and any model will do.
"""

import asyncio
import queue
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from pathweave.errors import PathWeaveError, RunError
from pathweave.model.base import ends_of
from pathweave.model.generate import search, spoken
from pathweave.model.pathweave import PathWeave, context_of
from pathweave.model.prompt import Prompt
from pathweave.model.rank import log_likelihoods
from pathweave.serve.engine import Asked, EngineError, OverloadError, Piece

SLICE = 32  # steps after which newcomers are let in
GONE = "the server is shutting down; ask again when it is back"


class InProcess:
    """An engine that decodes in a thread of this process.

    Args:
        model: The model; the engine alone calls its language model from now on.
        max_batch: Most answers that are decoded together. Memory grows with it.
        max_waiting: Most callers that wait; one more is refused.

    Attributes:
        steps: Steps that have been decoded, each of one token for every answer of a batch.
        tokens: Tokens that have been decoded.
    """

    def __init__(self, model: PathWeave, max_batch: int = 16, max_waiting: int = 256) -> None:
        self.model = model.eval()
        self.max_batch = max_batch
        self.steps = 0
        self.tokens = 0
        self._waiting: queue.Queue[_Row | _Call | None] = queue.Queue(max_waiting)
        self._ends = frozenset(ends_of(model.llm))
        self._closed = False
        self._door = Lock()
        self._thread = Thread(target=self._work, name="pathweave-engine", daemon=True)
        self._thread.start()

    async def stream(self, asked: Asked) -> AsyncIterator[Piece]:
        """Yield an answer in pieces; see ``Engine``."""
        row = _Row(asked, asyncio.get_running_loop())
        self._enter(row)
        try:
            while True:
                piece = await row.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            row.is_left = True

    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each choice; see ``Engine``."""
        return await self.call(lambda: log_likelihoods(self.model, [prompt], choices)[0].tolist())

    async def call(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 (whatever it returns)
        """Return what a function returns that is called by the engine's thread, in its turn.

        Raises:
            OverloadError: If too many callers wait.
        """
        loop = asyncio.get_running_loop()
        call = _Call(function, loop, loop.create_future())
        self._enter(call)
        return await call.result

    @property
    def waiting(self) -> int:
        """Number of callers who wait to be let in."""
        return self._waiting.qsize()

    @property
    def is_alive(self) -> bool:
        """Return whether its thread works."""
        return self._thread.is_alive()

    async def close(self) -> None:
        """End the work; callers who still wait are told."""
        with self._door:
            self._closed = True
        await asyncio.to_thread(self._waiting.put, None)
        await asyncio.to_thread(self._thread.join)

    def _enter(self, what: "_Row | _Call") -> None:
        with self._door:  # nobody enters once the thread has looked for the last time
            if self._closed:
                raise EngineError(GONE)
            try:
                self._waiting.put_nowait(what)
            except queue.Full:
                raise OverloadError(
                    f"at most {self._waiting.maxsize} callers may wait, got one more; ask later"
                ) from None

    def _work(self) -> None:
        running: list[_Row] = []
        while not self._closed:
            self._let_in(running)
            if running and not self._closed:
                self._decode(running)
            running = [row for row in running if not row.is_over]
        while not self._waiting.empty():
            if (what := self._waiting.get()) is not None:
                what.fail(EngineError(GONE))
        for row in running:
            row.fail(EngineError(GONE))

    def _let_in(self, running: "list[_Row]") -> None:
        """Add those who wait to a batch, as far as there is room; an empty one waits for them."""
        while len(running) < self.max_batch and not self._closed:
            try:
                what = self._waiting.get(block=not running)
            except queue.Empty:
                return
            if isinstance(what, _Call):
                what.run()
            elif what is not None and not what.is_left and what.check(self.model):
                running.append(what)

    def _decode(self, rows: "list[_Row]") -> None:
        """Decode a batch until all are answered, or newcomers are let in."""
        try:
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
        except Exception as error:
            if len(rows) == 1:
                rows[0].fail(error)
                return
            for row in rows:  # one bad prompt is no reason to fail the others
                if not row.is_over:
                    self._decode([row])

    def lets_in(self, steps: int, rows: "list[_Row]") -> bool:
        """Return whether a batch stops for newcomers after so many steps."""
        is_full = sum(not row.is_over for row in rows) >= self.max_batch
        return self._closed or (steps >= SLICE and not is_full and not self._waiting.empty())

    def heard(self, row: "_Row", token: int) -> None:
        """Add a token to an answer and hand on what it says."""
        row.tokens.append(token)
        self.tokens += 1
        text, is_closed = spoken(self.model, row.tokens, row.asked.stop)
        if token in self._ends or is_closed:
            row.finish("stop", text)
        elif len(row.tokens) >= row.asked.max_tokens:
            row.finish("length", text)
        else:
            row.say(text, (self.model.base.template.end.strip(), *row.asked.stop))


@dataclass(eq=False)
class _Row:
    """One answer: what is asked, what has been said, and who waits for it."""

    asked: Asked
    loop: asyncio.AbstractEventLoop
    pieces: "asyncio.Queue[Piece | Exception]" = field(default_factory=asyncio.Queue)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    said: int = 0  # letters
    is_left: bool = False
    is_done: bool = False

    def __post_init__(self) -> None:
        seed = secrets.randbits(63) if self.asked.seed is None else self.asked.seed
        self.chance = torch.Generator().manual_seed(seed)

    @property
    def is_over(self) -> bool:
        return self.is_left or self.is_done

    def check(self, model: PathWeave) -> bool:
        """Return whether a model can read the prompt; tell the caller if not."""
        try:
            self.prompt_tokens = model.length(self.asked.prompt)
            problem = model.misfit(self.asked.prompt, self.asked.max_tokens)
        except Exception as error:
            self.fail(error)
            return False
        if problem:
            self.fail(RunError(problem))
        return not problem

    def say(self, text: str, ends: Sequence[str]) -> None:
        """Hand on what is certain of the text so far: no half letters, and no half stop words."""
        certain = text.rstrip("\ufffd")
        held = max((_overlap(certain, end) for end in ends), default=0)
        certain = certain[: len(certain) - held].rstrip()
        if len(certain) > self.said:
            self._put(self._piece(certain))
            self.said = len(certain)

    def finish(self, why: Literal["stop", "length"], text: str) -> None:
        self.is_done = True
        self._put(self._piece(text, why))

    def fail(self, error: Exception) -> None:
        self.is_done = True
        if not isinstance(error, PathWeaveError):
            error = EngineError(
                f"an answer must not stop the engine, got {type(error).__name__}: {error}; ask "
                "less at once, or report it"
            )
        self._put(error)

    def _piece(self, text: str, why: Literal["stop", "length"] | None = None) -> Piece:
        return Piece(text[self.said :], len(self.tokens), self.prompt_tokens, why)

    def _put(self, what: Piece | Exception) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, what)


def _overlap(text: str, end: str) -> int:
    """Return how many letters at the end of a text begin a stop word."""
    return next((n for n in range(len(end) - 1, 0, -1) if text.endswith(end[:n])), 0)


@dataclass(eq=False)
class _Call:
    """A function that the engine's thread calls in its turn."""

    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: "asyncio.Future[Any]"

    def run(self) -> None:
        if self.result.cancelled():
            return
        try:
            made = self.function()
        except Exception as error:
            self.fail(error)
        else:
            self._set(lambda: self.result.set_result(made))

    def fail(self, error: Exception) -> None:
        self._set(lambda: self.result.set_exception(error))

    def _set(self, settle: Callable[[], None]) -> None:
        def unless_left() -> None:
            if not self.result.done():
                settle()

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(unless_left)


class _Choosing(LogitsProcessor):
    """Makes the largest logit of a row that wants chance a draw, of that row's own chance."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self._rows = rows

    def __call__(
        self, ids: Int[Tensor, "rows _"], logits: Float[Tensor, "rows words"]
    ) -> Float[Tensor, "rows words"]:
        for index, row in enumerate(self._rows):
            if row.asked.temperature > 0 and not row.is_over:
                logits[index] = _drawn(logits[index], row)
        return logits


def _drawn(logits: Float[Tensor, " words"], row: _Row) -> Float[Tensor, " words"]:
    """Return logits whose largest is a draw: Gumbel noise is added to those of the nucleus."""
    logits = (logits / row.asked.temperature).log_softmax(-1)
    ordered, order = logits.sort(descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    outside = (before >= row.asked.top_p).scatter(0, order, before >= row.asked.top_p)
    noise = torch.empty(logits.shape).exponential_(generator=row.chance).log().neg()
    return (logits + noise.to(logits.device)).masked_fill(outside, -torch.inf)


class _Watching(StoppingCriteria):
    """Hands each step's tokens to the engine, and ends rows that are answered or left."""

    def __init__(self, engine: InProcess, rows: list[_Row]) -> None:
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
