"""The HTTP server: routes in the shapes of OpenAI's API, keys, metrics, start and end."""

import asyncio
import hmac
import json
import logging
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pathweave.errors import PathWeaveError, RunError
from pathweave.serve.engine import Piece, whole
from pathweave.serve.openai_messages import RefusedError, refusal
from pathweave.serve.openai_requests import (
    ChatRequest,
    ResponsesRequest,
    completion,
    new_id,
    output_item,
    output_text,
    read_request,
    response,
    usage_of,
)
from pathweave.serve.page import add_files, page_routes
from pathweave.serve.sandbox import Sandbox
from pathweave.serve.service import Answer, Service
from pathweave.serve.typed_questions import TypedRequest

LEFT = 499  # what proxies write down for a client that left
GRACE = 3  # seconds in which answers may end when the server does
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
log = logging.getLogger("uvicorn.error")


def build_app(
    service: Service,
    sandbox: Sandbox | None = None,
    key: str | None = None,
    is_local: bool = True,
    root: Path | None = None,
) -> FastAPI:
    """Return the application of a server.

    Args:
        service: Answers.
        sandbox: Where media are decoded; it is closed with the application.
        key: What callers must show; None asks for nothing.
        is_local: Whether, without a key, it answers under the names of this machine alone, so that
            no page of the web can ask in its reader's name.
        root: Directory of the run that is served, whose paths and scores its page shows.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        if sandbox is not None:
            await asyncio.to_thread(sandbox.close)

    app = FastAPI(title="PathWeave", lifespan=lifespan, docs_url=None, redoc_url=None)
    meter = _Meter(service, sandbox)

    def check(request: Request) -> None:
        _check_caller(request, key, is_local)

    async def refuse(_: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=LEFT)
        if isinstance(error, HTTPException):
            error = RefusedError(f"{error.detail}; see docs/serve.md", error.status_code)
        status, body = refusal(error)
        headers = {"retry-after": "1"} if status == 429 else None
        return JSONResponse(body, status, headers)

    for kind in (PathWeaveError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, refuse)
    app.include_router(_routes(service), dependencies=[Depends(check)])
    app.add_middleware(_Measured, meter=meter)

    @app.get("/metrics", dependencies=[Depends(check)])
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(meter.registry))

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        problem = await service.engine.problem()
        told = {"status": "down", "problem": problem} if problem else {"status": "ok"}
        return JSONResponse(told, 503 if problem else 200)

    app.include_router(page_routes(service, root), dependencies=[Depends(check)])
    add_files(app)
    return app


def _check_caller(request: Request, key: str | None, is_local: bool) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
        raise RefusedError(
            "Authorization must be 'Bearer KEY' with the key of this server, got another or "
            "none; give it as api_key",
            401,
            "invalid_api_key",
        )
    host = request.headers.get("host", "")
    if (
        is_local
        and key is None
        and host.rpartition(":")[0] not in LOOPBACK
        and host not in LOOPBACK
    ):
        raise RefusedError(
            f"a server of this machine alone must be asked as one of {LOOPBACK}, got "
            f"{host!r:.80}; start it with --api-key",
            403,
        )


def _routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, name) for name in service.paths]}

    @routes.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model(service, service.path_of(name)[0])

    @routes.post("/chat/completions")
    async def chat(http: Request) -> Response:
        request = read_request(ChatRequest, await service.body(http))
        if not request.stream:
            answer, piece = await service.attended(http, _whole(service, request))
            return JSONResponse(completion(answer.model, piece, answer.media))
        answer = await service.attended(http, service.begin(request))
        return _events(service, _chunks(answer, request.stream_options.include_usage))

    @routes.post("/responses")
    async def responses(http: Request) -> Response:
        request = read_request(ResponsesRequest, await service.body(http))
        if not request.stream:
            answer, piece = await service.attended(http, _whole(service, request))
            return JSONResponse(response(answer.model, piece, answer.media, new_id("resp")))
        answer = await service.attended(http, service.begin(request))
        return _events(service, _response_events(answer))

    @routes.post("/systemone")
    async def systemone(http: Request) -> dict[str, Any]:
        request = read_request(TypedRequest, await service.body(http))
        return await service.attended(http, service.questions(request))

    return routes


def _model(service: Service, name: str) -> dict[str, Any]:
    """Return what is told of a model: its media, and of a path the model that it belongs to."""
    path = service.paths[name]
    nouns = {kind: decoder.noun for kind, decoder in service.reads[path].items()}
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "pathweave",
        "parent": None if path is None else service.name,
        "path": path,
        "media": nouns,
        "max_tokens": service.limits.max_tokens,
        "max_body": service.limits.max_body,
    }


async def _whole(service: Service, request: ChatRequest | ResponsesRequest) -> tuple[Answer, Piece]:
    answer = await service.begin(request)
    return answer, await whole(answer.pieces)


def _events(service: Service, events: AsyncGenerator[dict[str, str], None]) -> Response:
    """Return a response of events; who does not read them for too long loses them."""
    return EventSourceResponse(
        _told(events),
        send_timeout=service.limits.seconds,
        shutdown_grace_period=GRACE - 1,  # the end of the engine is told
        sep="\n",
    )


async def _told(events: AsyncGenerator[dict[str, str], None]) -> AsyncGenerator[Any, None]:
    """Yield events; an error in their midst is told as the last."""
    try:
        async for event in events:
            yield event
    except Exception as error:
        if not isinstance(error, PathWeaveError):
            log.exception("an answer failed")
        yield {"data": json.dumps(refusal(error)[1])}
    finally:
        await events.aclose()


async def _chunks(answer: Answer, with_usage: bool) -> AsyncGenerator[dict[str, str], None]:
    """Yield the events of ``/v1/chat/completions``."""
    made = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": answer.model,
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, str]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if with_usage else {}
        return {"data": json.dumps({**made, "choices": [choice], **usage})}

    try:
        yield chunk({"role": "assistant", "content": ""})
        async for piece in answer.pieces:
            if piece.text:
                yield chunk({"content": piece.text})
        yield chunk({}, piece.finish)
        if with_usage:
            usage = usage_of(piece, answer.media)
            yield {"data": json.dumps({**made, "choices": [], "usage": usage})}
        yield {"data": "[DONE]"}
    finally:
        await answer.pieces.aclose()


async def _response_events(answer: Answer) -> AsyncGenerator[dict[str, str], None]:
    """Yield the events of ``/v1/responses``."""
    count = 0

    def event(kind: str, **fields: object) -> dict[str, str]:
        nonlocal count
        count += 1
        told = {"type": kind, "sequence_number": count - 1, **fields}
        return {"event": kind, "data": json.dumps(told)}

    id = new_id("resp")
    at: dict[str, Any] = {"item_id": f"msg-{id}", "output_index": 0, "content_index": 0}
    begun = response(answer.model, None, {}, id)
    said = ""
    try:
        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        item = output_item(id, None, "in_progress")
        yield event("response.output_item.added", output_index=0, item=item)
        yield event("response.content_part.added", **at, part=output_text(""))
        async for piece in answer.pieces:
            said += piece.text
            if piece.text:
                yield event("response.output_text.delta", **at, delta=piece.text, logprobs=[])
        last = Piece(said, piece.tokens, piece.prompt_tokens, piece.finish)
        done = response(answer.model, last, answer.media, id)
        yield event("response.output_text.done", **at, text=said, logprobs=[])
        yield event("response.content_part.done", **at, part=output_text(said))
        yield event("response.output_item.done", output_index=0, item=done["output"][0])
        yield event(f"response.{done['status']}", response=done)
    finally:
        await answer.pieces.aclose()


class _Meter(Collector):
    """What is counted of a server."""

    def __init__(self, service: Service, sandbox: Sandbox | None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pathweave_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "pathweave_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["route"],
            registry=self.registry,
        )
        self._service, self._sandbox = service, sandbox
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield what the engine and the sandbox count by themselves."""
        engine = self._service.engine
        waiting = getattr(engine, "waiting", 0)
        yield GaugeMetricFamily("pathweave_waiting", "Callers who wait for a place.", waiting)
        steps = getattr(engine, "steps", 0)
        yield CounterMetricFamily("pathweave_steps", "Steps decoded, of a token a row.", steps)
        tokens = CounterMetricFamily(
            "pathweave_tokens", "Tokens of prompts by modality, and of answers.", labels=["kind"]
        )
        for kind, count in self._service.answered.items():
            tokens.add_metric([kind], count)
        yield tokens
        if self._sandbox is not None:
            failed, killed = self._sandbox.failures, self._sandbox.killed
            yield CounterMetricFamily("pathweave_undecodable", "Media not decoded.", failed)
            yield CounterMetricFamily("pathweave_decoders_ended", "Decoders ended.", killed)


class _Measured:
    """Counts requests by route and status, and ends those of clients that do not read."""

    def __init__(self, app: ASGIApp, meter: _Meter) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), LEFT

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except SendTimeoutError:
            status = LEFT
            log.warning("a client did not read its answer, which was given up")
        except Exception:
            status = 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.meter.requests.labels(route, str(status)).inc()
            self.meter.seconds.labels(route).observe(time.perf_counter() - start)


def open_door(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Name or number of the machine under which it listens.
        port: The port; 0 takes a free one.

    Raises:
        RunError: If it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise RunError(
            f"the server must have an address that is free, got {host}:{port} ({error.strerror}); "
            "choose another --port or --host"
        ) from error


def is_local(host: str) -> bool:
    """Return whether a server at an address can be reached from this machine alone."""
    return host.startswith("127.") or host in ("localhost", "::1")


def announce(service: Service, door: socket.socket, has_key: bool) -> list[str]:
    """Return what is said when a server starts: where it is, and what can be asked."""
    host, port = door.getsockname()[:2]
    named = f"[{host}]" if ":" in host else host
    address = f"http://{named}:{port}"
    lines = [
        f"address: {address}/v1",
        f"models: {', '.join(service.paths)}",
        f"page: {address}/",
    ]
    if not has_key and not is_local(host):
        lines.append(f"warning: whoever reaches {host} can ask; give --api-key")
    return lines


class EngineServer(uvicorn.Server):
    """A server that ends the engine first, so that answers under way end with a word about it.

    Args:
        app: The application.
        service: Answers.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE
        )
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the engine, and then what uvicorn ends."""
        await self._service.close()
        await super().shutdown(sockets)
