"""Engines: what answers the prompts of many callers at once."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from pathweave.errors import PathWeaveError
from pathweave.model.prompt import Prompt


class OverloadError(PathWeaveError):
    """An engine that has as many callers waiting as it may."""


class EngineError(PathWeaveError):
    """An engine that is away, of another model, or that failed while it answered."""


@dataclass(frozen=True)
class Asked:
    """A prompt and how to answer it.

    Attributes:
        prompt: Text and encoded media.
        max_tokens: Longest answer, in tokens.
        temperature: By which logits are divided before a token is drawn; 0 takes the likeliest.
        top_p: Only the likeliest tokens, of this probability together, are drawn from.
        seed: Of the draws; the same answer whatever else is asked meanwhile. None draws one.
        stop: Words that close the answer; they are left out of it.
    """

    prompt: Prompt
    max_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: What the answer goes on with.
        tokens: Tokens of the whole answer so far.
        prompt_tokens: Tokens of the prompt, with the words around it.
        finish: Why the answer ends with this piece: at its natural end or at a stop word, or at its
            longest; None if it goes on.
    """

    text: str
    tokens: int
    prompt_tokens: int
    finish: Literal["stop", "length"] | None = None


@runtime_checkable
class Engine(Protocol):
    """Answers prompts. All methods may be called by many tasks of one event loop at once.

    It may have the attributes ``waiting``, callers who wait, and ``steps``, steps decoded so far. A
    server tells them.
    """

    def stream(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Yield an answer in pieces; a caller who closes the iterator ends the work for it.

        Raises:
            OverloadError: If too many callers wait.
            RunError: If the language model cannot read the prompt and so long an answer.
            EngineError: If the engine fails.
        """
        ...

    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each choice as the whole answer, in nats.

        Raises:
            OverloadError: If too many callers wait.
            RequestError: If the engine cannot rank.
        """
        ...

    async def problem(self) -> str | None:
        """Return why it cannot answer at all, None if it can."""
        ...

    async def close(self) -> None:
        """End the work; callers who still wait are told."""
        ...


async def whole(pieces: AsyncIterator[Piece]) -> Piece:
    """Return an answer in one piece."""
    said, last = "", Piece("", 0, 0)
    async for piece in pieces:
        said, last = said + piece.text, piece
    return replace(last, text=said)
