"""The engine behind a URL: a stock vLLM, given whole prompts as embeddings.

This process encodes media, connects them and lays prompts out; the rows go to ``/v1/completions``
of ``vllm serve LLM --enable-prompt-embeds``, and tokens come back. Text is made of tokens here, as
the in-process engine makes it, so that answers are cut and handed on alike.
"""

import asyncio
import base64
import io
import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch
from jaxtyping import Float
from torch import Tensor

from pathweave.errors import PathWeaveError, RequestError, RunError
from pathweave.evaluate.verify import PROOF_TOKENS, QUESTION, recorded_answers
from pathweave.model.base import ends_of
from pathweave.model.generate import spoken
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.runs.loading import llm_place, refuse_hosts
from pathweave.runs.run_directory import RunDirectory
from pathweave.serve.engine import Asked, EngineError, OverloadError, Piece
from pathweave.serve.one_thread import GONE, OneThread, Row

KEY = "PATHWEAVE_ENGINE_KEY"  # environment variable of the engine's API key
CONNECT, PATIENCE = 10.0, 300.0  # seconds for a connection, and without a word from the engine
FULL = (429, 503)
ALIKE = 0.75  # share of recorded answers that an engine must give


@dataclass(frozen=True)
class Remote:
    """An engine at a URL.

    Attributes:
        url: Where it is.
        command: How to start it, for messages.
        name: Name of the model that it serves.
        context: Most tokens of a prompt and its answer that it takes.
    """

    url: str
    command: str
    name: str = ""
    context: int = 0

    def error(self, rule: str, problem: object) -> EngineError:
        """Return an error: what the engine must do, what it did, how to start it."""
        said = str(problem) if isinstance(problem, str) else f"{type(problem).__name__}: {problem}"
        said = " ".join(said.split())[:300]
        return EngineError(
            f"the engine at {self.url} must {rule}, got {said}; start it with: {self.command}"
        )

    def check(self, status: int, body: bytes) -> None:
        """Refuse an answer that is none.

        Raises:
            EngineError: With what the engine says.
            OverloadError: If it has too much to do.
        """
        if status == 401:
            raise EngineError(
                f"the engine at {self.url} must be given its key, got 401; set {KEY} to the key"
            )
        if status in FULL:
            raise OverloadError(f"the engine at {self.url} is full, got {status}; ask later")
        if status != 200:
            raise self.error("answer what it is asked", f"{status} {_said(body)}")

    def body(self, model: PathWeave, asked: Asked, **prompt: object) -> dict[str, Any]:
        """Return a request. What a model's own settings would change is set to no effect."""
        stops = (model.base.template.end.strip(), *asked.stop)
        return {
            "model": self.name,
            **prompt,
            "max_tokens": asked.max_tokens,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "seed": asked.seed,
            "stop": [stop for stop in stops if stop],
            "stop_token_ids": ends_of(model.llm),
            **{"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
            "skip_special_tokens": True,
            "return_token_ids": True,
        }


class VllmEngine(OneThread):
    """An engine whose answers another process decodes; prompts are embedded in a thread of this.

    A caller who leaves closes the connection of the request, and vLLM ends its work.

    Args:
        model: The model; its language model needs no layers (``load_run(..., layers=False)``).
        remote: The engine, as ``find_engine`` returns it.
        max_batch: Most prompts that are embedded together.
        max_waiting: Most callers, wherever their prompts are; one more is refused.
    """

    def __init__(
        self, model: PathWeave, remote: Remote, max_batch: int = 64, max_waiting: int = 256
    ) -> None:
        self.remote = remote
        self._asking: dict[Row, asyncio.Task[None]] = {}
        self._callers = 0
        self._client: httpx.AsyncClient | None = None
        super().__init__(model, max_batch, max_waiting)

    async def stream(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Yield an answer in pieces; see ``Engine``."""
        if self._callers >= self._waiting.maxsize:
            raise self.overload()
        self._callers += 1
        try:
            async with aclosing(super().stream(asked)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._callers -= 1

    async def rank(self, prompt: Prompt, choices: Sequence[str]) -> list[float]:
        """Refuse to rank: vLLM gives no likelihoods of what follows embeddings.

        Raises:
            RequestError: Always.
        """
        raise RequestError(
            "choices must be ranked by the engine of this process, got one behind a URL, which "
            "gives no likelihoods of a prompt of embeddings; ask a server without --engine"
        )

    async def problem(self) -> str | None:
        """Return why it cannot answer at all, None if it can: vLLM is asked whether it is well."""
        if own := await super().problem():
            return own
        try:
            async with httpx.AsyncClient(**_settings() | {"timeout": CONNECT}) as client:
                status = (await client.get(f"{self.remote.url}/health")).status_code
        except httpx.HTTPError as error:
            return str(self.remote.error("be there", error))
        return None if status == 200 else str(self.remote.error("be well", f"status {status}"))

    async def close(self) -> None:
        """End the work; callers who still wait are told."""
        await super().close()
        for row, task in self._asking.items():
            row.fail(EngineError(GONE))
            _cancel(task)
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def serve(self, rows: list[Row]) -> None:
        """Embed the prompts of a batch and post each."""
        with torch.no_grad():
            embedded = self.model.embed_prompts([row.asked.prompt for row in rows])
        for row, embeds in zip(rows, embedded, strict=True):
            count = len(embeds) + row.asked.max_tokens
            if count > self.remote.context:
                row.fail(
                    RunError(
                        f"a prompt and its answer must have at most {self.remote.context:,} tokens,"
                        f" for which the engine was started, got {count:,}; shorten the text or "
                        "the answer, or start it with a larger --max-model-len"
                    )
                )
                continue
            wanted = {"prompt_embeds": wire(embeds), "stream": True}
            body = json.dumps(self.remote.body(self.model, row.asked, **wanted)).encode()
            row.is_done = True  # for this thread
            if not row.loop.is_closed():
                row.loop.call_soon_threadsafe(self._start, row, body)

    def _start(self, row: Row, body: bytes) -> None:
        if row.is_left:
            return
        self._asking[row] = task = row.loop.create_task(self._ask(row, body))
        row.on_leave = partial(_cancel, task)
        task.add_done_callback(lambda _: self._asking.pop(row, None))

    async def _ask(self, row: Row, body: bytes) -> None:
        """Hand on what the engine says, to its end or to what goes wrong."""
        remote, is_whole = self.remote, False
        if self._client is None:
            self._client = httpx.AsyncClient(**_settings())
        try:
            url = f"{remote.url}/v1/completions"
            async with self._client.stream("POST", url, content=body) as response:
                if response.status_code != 200:
                    remote.check(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if line.startswith("data: {") and not is_whole:
                        is_whole = self._hear(row, line.removeprefix("data: "))
                    if is_whole:  # the engine ends by itself
                        row.on_leave = lambda: None
            if not is_whole:
                raise remote.error("end its answers", "an answer that breaks off")
        except httpx.HTTPError as error:
            if not is_whole:
                row.fail(remote.error("be there until it has answered", error))
        except Exception as error:
            row.fail(error)

    def _hear(self, row: Row, data: str) -> bool:
        """Hand on what a piece of the engine's answer says; return whether the answer is whole.

        Raises:
            EngineError: If it is no such piece.
        """
        try:
            piece = json.loads(data)
            if "error" in piece:
                raise self.remote.error("answer what it is asked", _said(data.encode()))
            choice = piece["choices"][0]
            tokens, why = [int(token) for token in choice["token_ids"]], choice["finish_reason"]
        except PathWeaveError:
            raise
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            said = _said(data.encode())
            raise self.remote.error("send tokens (return_token_ids)", said) from error
        if any(self.heard(row, token) for token in tokens):
            return True
        if why in ("stop", "length"):
            text, _ = spoken(self.model, row.tokens, row.asked.stop)
            row.finish(why, text)
        elif why is not None:
            raise self.remote.error("end its answers", f"one that ended for {why!r}")
        return why is not None


def _cancel(task: "asyncio.Task[None]") -> None:
    if not task.cancelling():  # a second time would stop it from closing its connection
        task.cancel()


def wire(embeds: Float[Tensor, "tokens dim"]) -> str:
    """Return rows as vLLM takes them: base64 of a file of torch."""
    file = io.BytesIO()
    torch.save(embeds.detach().cpu().clone(), file)
    return base64.b64encode(file.getvalue()).decode()


def remote_engine(
    model: PathWeave, run: Path, url: str, max_batch: int = 64, max_waiting: int = 256
) -> VllmEngine:
    """Return the vLLM at a URL, which answers prompts of a run, once it has proved to be the right.

    Call it where no event loop runs; the engine may then be used in one.

    Args:
        model: The model of the run, which needs no layers: ``load(run, layers=False).model``.
        run: The directory that ``pathweave evolve`` wrote.
        url: Where the engine listens, such as ``http://127.0.0.1:8000``.
        max_batch: See ``VllmEngine``.
        max_waiting: See ``VllmEngine``.

    Raises:
        RunError: If a path has adapters inside the language model.
        EngineError: If the engine is away, does not take embeddings, or serves another model.
    """
    refuse_hosts(model)
    directory, kind = RunDirectory(run), str(model.llm.dtype).removeprefix("torch.")
    serve = f"vllm serve {llm_place(directory.recipe())} --dtype {kind} --enable-prompt-embeds"
    remote = find_engine(url, f"{serve} --host 127.0.0.1")
    prove(model, directory, remote)
    return VllmEngine(model, remote, max_batch, max_waiting)


def find_engine(url: str, command: str) -> Remote:
    """Return the engine at a URL.

    Args:
        url: Where it listens.
        command: How to start it, for messages.

    Raises:
        EngineError: If the URL is none, or no engine answers there.
    """
    try:
        parsed = httpx.URL(url.rstrip("/").removesuffix("/v1"))
        known = parsed.scheme in ("http", "https") and parsed.host and not parsed.userinfo
    except (httpx.InvalidURL, ValueError):
        known = False
    if not known:
        raise EngineError(
            f"an engine must be at a URL such as http://127.0.0.1:8000, with no key in it, got "
            f"one that is not ({url.rpartition('@')[2]!r}); a key goes into {KEY}"
        )
    remote = Remote(str(parsed), command)
    with httpx.Client(**_settings()) as client:
        listed = _exchange(client, remote, "GET", "models")
    try:
        first = listed["data"][0]
        return Remote(remote.url, command, str(first["id"]), int(first["max_model_len"]))
    except (LookupError, TypeError, ValueError) as error:
        raise remote.error("be a vLLM and list its model", str(listed)) from error


def prove(model: PathWeave, run: RunDirectory, remote: Remote) -> int:
    """Check that an engine serves the language model of a run, and return how many answers say so.

    It is asked what the run has recorded of its base and its paths, and must give three quarters of
    those answers, as another type or quantised weights may change a few. Where nothing is recorded,
    it is asked a question as embeddings and as tokens, and must answer both alike.

    Raises:
        EngineError: If it serves another model, or takes no embeddings.
    """
    known = recorded_answers(run, model.paths.names)
    prompts = [prompt for prompt, _ in known] or [[QUESTION]]
    asked = Asked([], PROOF_TOKENS)
    with torch.no_grad():
        embeds = [wire(rows) for rows in model.embed_prompts(prompts)]
    with httpx.Client(**_settings()) as client:
        if known:
            expected = [answer for _, answer in known]
        else:
            ids = [list(prefix + rest) for prefix, rest in model.lay_out(prompts).rows]
            expected = _answers(client, model, remote, remote.body(model, asked, prompt=ids))
        body = remote.body(model, asked, prompt_embeds=embeds)
        answers = _answers(client, model, remote, body)
    wrong = [pair for pair in zip(answers, expected, strict=True) if pair[0] != pair[1]]
    if len(wrong) > (1 - ALIKE) * len(expected):
        got, wanted = wrong[0]
        raise remote.error(
            "serve the language model of the run",
            f"{remote.name!r}, whose answers to {len(wrong)} of {len(expected)} recorded questions "
            f"are others, such as {got!r} for {wanted!r}",
        )
    return len(expected) - len(wrong)


def _answers(
    client: httpx.Client, model: PathWeave, remote: Remote, body: Mapping[str, Any]
) -> list[str]:
    told = _exchange(client, remote, "POST", "completions", body)
    try:
        choices = sorted(told["choices"], key=lambda choice: choice["index"])
        return [spoken(model, choice["token_ids"])[0] for choice in choices]
    except (LookupError, TypeError) as error:
        raise remote.error("send tokens (return_token_ids)", str(told)) from error


def _exchange(
    client: httpx.Client, remote: Remote, method: str, what: str, body: object = None
) -> Any:  # noqa: ANN401 (JSON)
    try:
        response = client.request(method, f"{remote.url}/v1/{what}", json=body)
        remote.check(response.status_code, response.content)
        return response.json()
    except PathWeaveError:
        raise
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise remote.error("answer", error) from error


def _settings() -> dict[str, Any]:
    key = os.environ.get(KEY)
    return {
        "headers": {"Content-Type": "application/json"}
        | ({"Authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx.Timeout(PATIENCE, connect=CONNECT, pool=None),
        # Each request has a connection of its own: the engine may be closing one that is idle.
        "limits": httpx.Limits(max_keepalive_connections=0),
        "trust_env": False,  # a proxy would not find what listens on loopback
    }


def _said(body: bytes) -> str:
    """Return the message in what an engine sends where it fails."""
    try:
        told = json.loads(body)
        return str(told.get("error", told)["message"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return body.decode(errors="replace")
