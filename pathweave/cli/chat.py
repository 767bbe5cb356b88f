"""``pathweave chat``: talk with a model in the terminal."""

import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from pathweave.cli.trust import TrustCode
from pathweave.errors import PathWeaveError
from pathweave.extras import import_extra

if TYPE_CHECKING:
    from pathweave.serve.chat_session import ChatSession


def chat(
    model: Annotated[str, typer.Argument(metavar="DIR|BASE", help="A run, or a base by itself.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    trust_code: TrustCode = False,
) -> None:
    """Talk with a model: questions in turn, media of every modality it knows.

    /NAME FILE shows a medium with the next question, /help lists the other commands. The Tab key
    completes commands and file names. Ctrl-C ends an answer, Ctrl-D the conversation. Without a
    terminal every line of the input is one question or command.

    Example: pathweave chat runs/mcl_mini
    """
    import asyncio

    from pathweave.runs.assistant import load, load_alone, run_of
    from pathweave.serve.chat_session import ChatSession
    from pathweave.serve.in_process import InProcess

    assistant = load_alone(model) if run_of(model) is None else load(model)

    async def converse() -> None:
        engine = InProcess(assistant.model, max_batch=1)
        session = ChatSession(assistant, engine, max_tokens)
        try:
            await talk(session, reader(session))
        finally:
            await engine.close()

    asyncio.run(converse())


def reader(session: "ChatSession") -> Callable[[], Awaitable[str]]:
    """Return what reads a line; it raises ``EOFError`` at the end of the input."""
    if sys.stdin.isatty():
        import_extra("prompt_toolkit", "chat")
        from pathweave.cli.completion import line_reader

        return line_reader(session.kinds)

    async def read() -> str:
        import asyncio

        if line := await asyncio.to_thread(sys.stdin.readline):
            return line
        raise EOFError

    return read


async def talk(session: "ChatSession", read: Callable[[], Awaitable[str]]) -> None:
    """Answer line by line until the input ends; what fails is told, and the talk goes on."""
    while True:
        try:
            line = (await read()).strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        if line == "/quit":
            return
        if not line and not session.shown:
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                typer.echo(session.command(line))
            else:
                await answer(session, line.removeprefix("/"))
        except PathWeaveError as error:
            typer.secho(f"error: {error}", err=True, fg="red")


async def answer(session: "ChatSession", text: str) -> None:
    """Print the answer to a question while it comes; Ctrl-C ends the answer alone."""
    import asyncio
    import signal

    async def say() -> None:
        async with aclosing(session.ask(text)) as pieces:
            async for piece in pieces:
                typer.echo(piece, nl=False)
        typer.echo()

    task, loop = asyncio.ensure_future(say()), asyncio.get_running_loop()
    before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        await task
    except asyncio.CancelledError:
        typer.echo(" (stopped)")
    finally:
        signal.signal(signal.SIGINT, before)
