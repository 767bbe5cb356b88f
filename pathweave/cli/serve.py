"""``pathweave serve``: answer over HTTP, in the shapes of OpenAI's API."""

from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.trust import TrustCode
from pathweave.extras import import_extra


def serve(  # noqa: PLR0913 (all are options of one command)
    model: Annotated[str, typer.Argument(metavar="DIR|BASE", help="A run, or a base by itself.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="PATHWEAVE_API_KEY", help="Key that callers must show.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Id of the model; by default that of the directory.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A vLLM that answers in place of this process."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, in tokens, and the usual one.")
    ] = 512,
    max_batch: Annotated[int, typer.Option(min=1, help="Answers decoded together.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=1, help="Callers that may wait.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Size of a request, in MB.")] = 64,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds of a request.")] = 300.0,
    decode_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds that decoding a medium may take.")
    ] = 20.0,
    decode_memory: Annotated[
        int, typer.Option(min=64, help="Memory that decoding a medium may take, in MB.")
    ] = 2048,
    keep: Annotated[
        int, typer.Option(min=0, help="Memory for features of media that were sent, in MB.")
    ] = 256,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
    fetch: Annotated[
        list[str] | None,
        typer.Option(help="Host that media may be fetched from; once for each. None is usual."),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Answer requests of OpenAI's clients until Ctrl-C.

    Example: pathweave serve runs/mcl_mini

    Example: pathweave serve runs/mcl_mini --engine http://127.0.0.1:8001

    Example: pathweave serve Salesforce/instructblip-vicuna-7b --port 9000 --api-key secret
    """
    for module in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "httpx"):
        import_extra(module, "serve")
    from pathweave.runs.assistant import run_of
    from pathweave.serve.fetching import Fetcher
    from pathweave.serve.sandbox import Sandbox
    from pathweave.serve.server import EngineServer, announce, build_app, is_local, open_door
    from pathweave.serve.service import Limits, Service, load_served, make_engine

    with open_door(host, port) as door:
        sandbox = Sandbox(decoders, decode_seconds, decode_memory << 20)
        sandbox.start()
        assistant = load_served(model, sandbox.guard, engine is None, keep << 20)
        answering = make_engine(assistant, model, engine, max_batch, max_waiting)
        limits = Limits(max_body=max_body << 20, max_tokens=max_tokens, seconds=timeout)
        fetcher = Fetcher(fetch or (), max_body << 20)
        service = Service(assistant, answering, name or Path(model).name, limits, fetcher)
        app = build_app(service, sandbox, api_key, is_local(host), run_of(model))
        for line in announce(service, door, has_key=api_key is not None):
            typer.echo(line)
        EngineServer(app, service).run(sockets=[door])
