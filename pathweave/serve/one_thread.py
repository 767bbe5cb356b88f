"""One thread and one queue: what engines have in common, whoever decodes."""

import asyncio
import queue
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Literal

import torch

from pathweave.errors import PathWeaveError, RunError
from pathweave.model.base import ends_of
from pathweave.model.generate import spoken
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.serve.engine import Asked, EngineError, OverloadError, Piece

GONE = "the server is shutting down; ask again when it is back"


class OneThread(ABC):
    """An engine whose thread alone calls the model, for all who wait together.

    Args:
        model: The model; from now on the engine alone calls it.
        max_batch: Most prompts at once. Memory grows with it.
        max_waiting: Most callers that wait; one more is refused.

    Attributes:
        tokens: Tokens that have been said.
    """

    def __init__(self, model: PathWeave, max_batch: int = 64, max_waiting: int = 256) -> None:
        self.model = model.eval()
        self.max_batch = max_batch
        self.tokens = 0
        self._waiting: queue.Queue[Row | _Call | None] = queue.Queue(max_waiting)
        self._ends = frozenset(ends_of(model.llm))
        self._closed = False
        self._door = Lock()
        self._thread = Thread(target=self._work, name="pathweave-engine", daemon=True)
        self._thread.start()

    async def stream(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Yield an answer in pieces; see ``Engine``."""
        row = Row(asked, asyncio.get_running_loop())
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
            row.leave()

    @abstractmethod
    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each choice; see ``Engine``."""

    @abstractmethod
    def serve(self, rows: "list[Row]") -> None:
        """Go on with the answers of a batch, in the engine's thread; those that are over leave."""

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

    async def problem(self) -> str | None:
        """Return why it cannot answer at all, None if it can."""
        return None if self._thread.is_alive() else "the thread of the engine has ended"

    async def close(self) -> None:
        """End the work; callers who still wait are told."""
        with self._door:
            self._closed = True
        await asyncio.to_thread(self._waiting.put, None)
        await asyncio.to_thread(self._thread.join)

    def heard(self, row: "Row", token: int) -> bool:
        """Add a token to an answer and hand on what it says; return whether the answer is whole."""
        row.tokens.append(token)
        self.tokens += 1
        text, is_closed = spoken(self.model, row.tokens, row.asked.stop)
        if token in self._ends or is_closed:
            row.finish("stop", text)
        elif len(row.tokens) >= row.asked.max_tokens:
            row.finish("length", text)
        else:
            row.say(text, (self.model.base.template.end.strip(), *row.asked.stop))
            return False
        return True

    def overload(self) -> OverloadError:
        """Return the error for one caller too many."""
        return OverloadError(
            f"at most {self._waiting.maxsize} callers may wait, got one more; ask later"
        )

    def _enter(self, what: "Row | _Call") -> None:
        with self._door:  # nobody enters once the thread has looked for the last time
            if self._closed:
                raise EngineError(GONE)
            try:
                self._waiting.put_nowait(what)
            except queue.Full:
                raise self.overload() from None

    def _work(self) -> None:
        running: list[Row] = []
        while not self._closed:
            self._let_in(running)
            if running and not self._closed:
                self._serve(running)
            running = [row for row in running if not row.is_over]
        while not self._waiting.empty():
            if (what := self._waiting.get()) is not None:
                what.fail(EngineError(GONE))
        for row in running:
            row.fail(EngineError(GONE))

    def _let_in(self, running: "list[Row]") -> None:
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

    def _serve(self, rows: "list[Row]") -> None:
        try:
            self.serve(rows)
        except Exception as error:
            if len(rows) == 1:
                rows[0].fail(error)
                return
            for row in rows:  # one bad prompt is no reason to fail the others
                if not row.is_over:
                    self._serve([row])


@dataclass(eq=False)
class Row:
    """One answer: what is asked, what has been said, and who waits for it.

    Attributes:
        asked: The prompt and how to answer it.
        loop: Where the caller waits.
        pieces: Pieces of the answer, or an error, for the caller.
        tokens: Tokens of the answer so far.
        prompt_tokens: Tokens of the prompt.
        is_left: Whether the caller has gone.
        is_done: Whether the engine's thread has nothing more to do for it.
        on_leave: Called when the caller goes.
    """

    asked: Asked
    loop: asyncio.AbstractEventLoop
    pieces: "asyncio.Queue[Piece | Exception]" = field(default_factory=asyncio.Queue)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    is_left: bool = False
    is_done: bool = False
    on_leave: Callable[[], object] = lambda: None
    _said: int = 0  # letters

    def __post_init__(self) -> None:
        seed = secrets.randbits(63) if self.asked.seed is None else self.asked.seed
        self.chance = torch.Generator().manual_seed(seed)

    @property
    def is_over(self) -> bool:
        """Whether the engine's thread may forget it."""
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
        if len(certain) > self._said:
            self._put(self._piece(certain))
            self._said = len(certain)

    def finish(self, why: Literal["stop", "length"], text: str) -> None:
        """Hand on the end of an answer."""
        self.is_done = True
        self._put(self._piece(text, why))

    def fail(self, error: Exception) -> None:
        """Tell the caller what went wrong."""
        self.is_done = True
        if not isinstance(error, PathWeaveError):
            error = EngineError(
                f"an answer must not stop the engine, got {type(error).__name__}: {error}; ask "
                "less at once, or report it"
            )
        self._put(error)

    def leave(self) -> None:
        """Say that the caller has gone."""
        self.is_left = True
        self.on_leave()

    def _piece(self, text: str, why: Literal["stop", "length"] | None = None) -> Piece:
        return Piece(text[self._said :], len(self.tokens), self.prompt_tokens, why)

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
