"""The service: what stands between requests of HTTP and an engine."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from pathweave.data.cache import FeatureCache
from pathweave.data.readers import JointReader, NativeReader
from pathweave.decoders import Decoder
from pathweave.errors import RunError
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Native, Prompt
from pathweave.runs.assistant import Assistant, load, load_alone, run_of
from pathweave.serve.engine import Asked, Engine, OverloadError, Piece
from pathweave.serve.fetching import Fetcher
from pathweave.serve.in_process import InProcess
from pathweave.serve.one_thread import OneThread
from pathweave.serve.openai_messages import RefusedError, turns_of
from pathweave.serve.openai_requests import ChatRequest, ResponsesRequest
from pathweave.serve.sandbox import inside
from pathweave.serve.typed_questions import TypedRequest, probabilities
from pathweave.serve.vllm_engine import remote_engine
from pathweave.storage.atomic import features_home
from pathweave.validation import unknown

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What callers may use.

    Attributes:
        max_body: Bytes of a request.
        max_messages: Messages of a conversation.
        max_parts: Parts of a message.
        max_tokens: Tokens of an answer; it is as long as that if a request does not say.
        max_preparing: Requests that are read and decoded at once; one more is refused.
        seconds: Each of sending a request, preparing its answer, and the answer.
        threads: Requests whose media are decoded and encoded at once.
    """

    max_body: int = 64 << 20
    max_messages: int = 256
    max_parts: int = 256
    max_tokens: int = 512
    max_preparing: int = 64
    seconds: float = 300.0
    threads: int = 4


@dataclass(frozen=True)
class Answer:
    """An answer that has begun.

    Attributes:
        model: Id that was asked.
        pieces: What it consists of; whoever has read enough closes it.
        media: Tokens of the prompt's media, by modality.
    """

    model: str
    pieces: AsyncGenerator[Piece, None]
    media: Mapping[str, int]


class Service:
    """Answers requests with an assistant, which reads media, and an engine, which decodes.

    Args:
        assistant: Reads media; its paths are what can be asked.
        engine: Answers prompts.
        name: Id under which the base is asked; ``NAME:PATH`` reads every medium with a path.
        limits: What callers may use.
        fetcher: Fetches media from foreign addresses.

    Attributes:
        reads: Decoders of the modalities that are read, by path; those of None by default.
        answered: Tokens so far, of prompts by modality and of answers.
        started: When it was made, in seconds since 1970.
    """

    def __init__(
        self,
        assistant: Assistant,
        engine: Engine,
        name: str,
        limits: Limits | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.assistant, self.engine, self.name = assistant, engine, name
        self.limits = limits or Limits()
        self.fetcher = fetcher or Fetcher()
        self.reads = _decoders(assistant)
        self.paths = {f"{name}:{path}" if path else name: path for path in self.reads}
        self.answered: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(self.limits.threads, "pathweave-media")
        self.started = int(time.time())
        self._preparing = 0

    async def close(self) -> None:
        """End the engine and what reads media."""
        await self.engine.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def path_of(self, model: str | None) -> tuple[str, str | None]:
        """Return the id of a model, and the path that is to read its media.

        Raises:
            RefusedError: If there is no such model.
        """
        model = self.name if model is None else model
        if model not in self.paths:
            said = unknown("model", model[:100], self.paths)
            raise RefusedError(said, 404, "model_not_found")
        return model, self.paths[model]

    async def body(self, http: Request) -> bytes:
        """Return the body of a request.

        Raises:
            RefusedError: If it is too long, or does not end in time.
            OverloadError: If too many requests are being read.
        """
        if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            found = http.headers.get("content-type")
            raise RefusedError(f"content-type must be application/json, got {found!r:.60}", 415)
        self._check_preparing()
        self._preparing += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await _read(http, self.limits.max_body)
        except TimeoutError:
            raise RefusedError(
                f"a request must be sent within {self.limits.seconds:g} s, got half of it; send "
                "less, or start the server with a longer --timeout",
                408,
            ) from None
        finally:
            self._preparing -= 1

    def _check_preparing(self) -> None:
        if self._preparing >= self.limits.max_preparing:
            raise OverloadError(
                f"at most {self.limits.max_preparing} requests may be read and decoded at once, "
                "got one more; ask later"
            )

    async def attended(self, http: Request, work: Coroutine[Any, Any, Result]) -> Result:
        """Return what work comes to; it is ended if it takes too long or the client leaves.

        Raises:
            RefusedError: If it takes too long.
            ClientDisconnect: If the client leaves.
        """
        task, left = asyncio.create_task(work), asyncio.create_task(_left(http))
        try:
            async with asyncio.timeout(self.limits.seconds):
                await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect
            return task.result()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            for each in (left, task):
                each.cancel()
            await asyncio.wait({left, task})

    def _too_slow(self) -> RefusedError:
        return RefusedError(
            f"a request must be answered within {self.limits.seconds:g} s, got none so far; ask "
            "for fewer tokens, or start the server with a longer --timeout",
            504,
            "timeout",
        )

    async def begin(self, request: ChatRequest | ResponsesRequest) -> Answer:
        """Return the answer to a request once its first piece is there.

        Raises:
            PathWeaveError: If the request is refused, or the engine fails.
        """
        model, _ = self.path_of(request.model)
        asked = request.asked(self.limits.max_tokens)
        prompt, media = await self.prompt(request)
        pieces = self._pieces(replace(asked, prompt=prompt), media)
        first = await anext(pieces)
        return Answer(model, _with_first(first, pieces), media)

    async def _pieces(self, asked: Asked, media: Mapping[str, int]) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of an answer, each in time, and count tokens."""
        stream = cast(AsyncGenerator[Piece, None], self.engine.stream(asked))
        end = asyncio.get_running_loop().time() + self.limits.seconds
        piece = Piece("", 0, 0)
        try:
            while piece.finish is None:
                async with asyncio.timeout_at(end):
                    piece = await anext(stream)
                yield piece
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            with suppress(RuntimeError):  # it is running still if this is thrown away
                await stream.aclose()
            self._count(piece.prompt_tokens, media)
            self.answered["answer"] += piece.tokens

    def _count(self, prompt_tokens: int, media: Mapping[str, int]) -> None:
        if prompt_tokens:
            self.answered.update({**media, "text": prompt_tokens - sum(media.values())})

    async def questions(self, request: TypedRequest) -> dict[str, Any]:
        """Return the answers to typed questions, by name, and the tokens of their prompts.

        Raises:
            PathWeaveError: If the request is refused, or the engine fails.
        """
        model, path = self.path_of(request.model)
        answers, tokens = {}, 0
        for name, question in request.questions.items():
            content = await asyncio.to_thread(request.content, name, self.reads[path])
            turns = [{"role": "user", "content": content}]
            prompt, media = await self._prompt(turns, path)
            ranked = await self.engine.rank(prompt, list(question.allowed.values()))
            answers[name] = question.answer(probabilities(ranked))
            length = await self._in_thread(self.assistant.model.length, prompt)
            self._count(length, media)
            tokens += length
        usage = {"input_tokens": tokens, "output_tokens": 0}
        return {"model": model, "answers": answers, "usage": usage}

    async def prompt(
        self, request: ChatRequest | ResponsesRequest
    ) -> tuple[Prompt, dict[str, int]]:
        """Return the prompt of a request with its media encoded, and the tokens of these.

        Raises:
            PathWeaveError: If the request is refused.
        """
        _, path = self.path_of(request.model)
        limits = self.limits.max_messages, self.limits.max_parts
        turns = await asyncio.to_thread(turns_of, request.messages, self.reads[path], *limits)
        return await self._prompt(turns, path, request.pathweave.blind)

    async def call(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns that calls the model, while no one else does.

        Raises:
            PathWeaveError: If the engine is busy, or the function fails.
        """
        if isinstance(self.engine, InProcess):
            return await self.engine.call(function)
        return await self._in_thread(function)

    async def _prompt(
        self, turns: Sequence[dict[str, Any]], path: str | None, blind: bool = False
    ) -> tuple[Prompt, dict[str, int]]:
        """Return turns with their media encoded, and the tokens of these by modality."""
        self._check_preparing()
        self._preparing += 1
        try:
            for number, turn in enumerate(turns, start=1):
                for place, part in enumerate(turn["content"], start=1):
                    if (url := part.pop("url", None)) is not None:
                        where = f"the request, turn {number}, part {place}"
                        part["data"] = await self.fetcher.fetch(url, where)

            def made() -> tuple[Prompt, dict[str, int]]:
                prompt = self.assistant.prompt(turns, "the request", path, blind)
                return prompt, media_tokens(self.assistant.model, prompt)

            return await self._in_thread(made)
        finally:
            self._preparing -= 1

    async def _in_thread(self, function: Any, *args: object) -> Any:  # noqa: ANN401
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def media_tokens(model: PathWeave, prompt: Prompt) -> dict[str, int]:
    """Return the tokens of a prompt's media, by modality, or by path where one reads one alone."""
    counts: Counter[str] = Counter()
    for piece in prompt:
        if isinstance(piece, Medium):
            counts[piece.modality or piece.path] += model.tokens_of(piece)
    for kind in {piece.kind for piece in prompt if isinstance(piece, Native)}:
        others = [p for p in prompt if not (isinstance(p, Native) and p.kind == kind)]
        counts[kind] += model.length(prompt) - model.length(others)
    return dict(counts)


def _decoders(assistant: Assistant) -> dict[str | None, dict[str, Decoder]]:
    """Return decoders by modality, by the path that reads them; those of None are the default."""
    reads: dict[str | None, dict[str, Decoder]] = {None: {}}
    readers = assistant.readers
    for path in assistant.model.paths.names:
        if path not in readers:
            continue
        reader = readers[path]
        names = reader.reads if isinstance(reader, JointReader) else (path,)
        reads[path] = {name: inside(reader.of(name).decoder) for name in names}
        if not isinstance(reader, JointReader):
            reads[None] |= reads[path]
    for kind in assistant.model.base.native:
        if kind in readers and isinstance(reader := readers[kind], NativeReader):
            reads[None].setdefault(kind, inside(reader.decoder))
    return reads


def load_served(
    model: str,
    guard: Callable[[Decoder], Decoder],
    has_layers: bool = True,
    memory: int = 256 << 20,
) -> Assistant:
    """Return the assistant of a run or of a base, with all it reads media with.

    Args:
        model: The directory of a run, or a base: see ``pathweave.runs.loading.load_base``.
        guard: Wraps each decoder.
        has_layers: Whether the language model is to answer here.
        memory: Bytes of features that are kept, of media read last; none are written to disk.

    Raises:
        RunError: If a base by itself is to be answered elsewhere.
        PathWeaveError: If it cannot be loaded whole.
    """
    cache = FeatureCache(features_home(), memory)
    if run_of(model) is not None:
        assistant = load(model, guard=guard, layers=has_layers, cache=cache)
    elif has_layers:
        assistant = load_alone(model, guard, cache)
    else:
        raise RunError(
            f"--engine must go with the directory of a run, which knows the language model, got "
            f"{model!r}; leave --engine out"
        )
    _decoders(assistant)  # encoders are loaded now: threads would load them twice
    return assistant


def make_engine(
    assistant: Assistant, model: str, url: str | None, max_batch: int, max_waiting: int
) -> OneThread:
    """Return what answers: the language model of this process, or a vLLM at a URL.

    Args:
        assistant: See ``load_served``.
        model: See ``load_served``.
        url: Where the vLLM listens; None answers here.
        max_batch: Most answers that are decoded together, or prompts that are embedded together.
        max_waiting: Most callers that wait; one more is refused.

    Raises:
        EngineError: If there is no vLLM, or it serves another language model.
    """
    run = run_of(model)
    if url is None or run is None:
        return InProcess(assistant.model, max_batch, max_waiting)
    return remote_engine(assistant.model, run, url, max_batch, max_waiting)


async def _read(http: Request, most: int) -> bytes:
    stated = http.headers.get("content-length", "")
    size = int(stated) if stated.isdigit() else 0
    pieces: list[bytes] = []
    # What is too long is read and thrown away: many clients listen only when they have sent all.
    if size <= most or "expect" not in http.headers:
        total = 0
        async for piece in http.stream():
            total += len(piece)
            pieces.append(piece if max(size, total) <= most else b"")
        size = max(size, total)
    if size > most:
        raise RefusedError(
            f"a request must have at most {most:,} bytes, got {size:,}; send smaller media, or "
            "start the server with a larger --max-body",
            413,
            "too_large",
        )
    return b"".join(pieces)


async def _left(http: Request) -> None:
    """Return when the client has left."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _with_first(
    first: Piece, others: AsyncGenerator[Piece, None]
) -> AsyncGenerator[Piece, None]:
    try:
        yield first
        async for piece in others:
            yield piece
    finally:
        await others.aclose()
