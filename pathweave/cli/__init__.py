"""The command line: one file per command, no logic.

Commands import what they need when they run, so that ``--help`` answers at once.
"""

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pathweave import __version__
from pathweave.cli.ask import AskCommand, ask
from pathweave.cli.cache import cache
from pathweave.cli.chat import chat
from pathweave.cli.compare import compare
from pathweave.cli.curve import curve
from pathweave.cli.data import data_app
from pathweave.cli.diff import diff
from pathweave.cli.encode import encode
from pathweave.cli.estimate import estimate
from pathweave.cli.evaluate import evaluate
from pathweave.cli.evolve import evolve
from pathweave.cli.export import export
from pathweave.cli.extend import extend
from pathweave.cli.fetch import fetch
from pathweave.cli.import_ import import_
from pathweave.cli.inspect import inspect
from pathweave.cli.modality import modality_app
from pathweave.cli.recipes import recipes
from pathweave.cli.serve import serve
from pathweave.cli.share import add, pack, pull, push, unpack
from pathweave.cli.tokens import tokens
from pathweave.cli.verify import verify
from pathweave.cli.waiting import choose_waiting
from pathweave.errors import PathWeaveError

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Add senses to a pretrained vision language model one at a time, without forgetting. "
    "Exit codes: 0 done, 1 a check failed, 2 bad input, 130 stopped on request.",
)
panels: dict[str, tuple[Callable[..., None], ...]] = {
    "Learn": (evolve, extend, compare, curve, encode, recipes),
    "Ask": (ask, chat, serve, tokens),
    "Look": (inspect, verify, evaluate, diff, estimate, cache),
    "Give and take": (pack, unpack, add, push, pull, fetch, import_, export),
}
# The options of ask are the modalities of the run, which only the run knows.
unusual: dict[Callable[..., None], dict[str, Any]] = {
    ask: {"cls": AskCommand, "context_settings": {"ignore_unknown_options": True}},
    import_: {"name": "import"},
}
for panel, commands in panels.items():
    for command in commands:
        app.command(rich_help_panel=panel, **unusual.get(command, {}))(command)
app.command("mcl", hidden=True)(compare)  # an older name, in scripts of users
app.add_typer(data_app, name="data", rich_help_panel="Learn")
app.add_typer(modality_app, name="modality", rich_help_panel="Learn")


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"pathweave {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors that a user can cause are one line, never a traceback."""
    if "--help" not in sys.argv and "torch" not in sys.modules:
        choose_waiting(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal has no letter for
    try:
        app()
    except PathWeaveError as error:
        _end(str(error))
    except (MemoryError, RuntimeError) as error:  # torch, whose errors these are, may not be there
        is_torchs = type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
        if not (is_torchs or isinstance(error, MemoryError)):
            raise
        _end(
            "what is computed at once must fit into memory, got "
            f"{' '.join(str(error).split()).split('. ')[0] or 'too much'}; compute less at once: "
            "training.micro_batch, training.checkpointing or evaluation.batch_size of a recipe, "
            "--max-batch of serve, or a language model in fewer bits (quantise)"
        )
    except KeyboardInterrupt:
        typer.secho("stopped", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _end(error: str) -> None:
    typer.secho(f"error: {error}", err=True, fg="red")
    sys.exit(EXIT_BAD_INPUT)
