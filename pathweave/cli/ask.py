"""``pathweave ask``: put a question about media to a model."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pathweave.cli.quick_start import import_models_quickly
from pathweave.cli.trust import TrustCode
from pathweave.errors import RunError


class AskCommand(TyperCommand):
    """A command that leaves ``--`` among its words: what follows is text, dashes or not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (typer has its own)
        """Parse the words of the command line."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:end], *args[end : end + 1], *args[end:]])


def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[DIR] [--MODALITY FILE]... [TEXT]", help="See above.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="Instead of a run: a base by itself, a directory or the id of a hub."),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(help="Read every medium with this path; by default each with its own."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    beams: Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = 1,
    blind: Annotated[
        bool, typer.Option("--blind", help="Blank the media: does the answer owe them anything?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Ask about one or more media; every modality of the run is an option.

    Media are put to the model in the order given, then the text. --companion FILE after a medium
    names its second file, for decoders that take a pair. With --base there is no run: a pretrained
    InstructBLIP, BLIP-2 or vision LLM is asked as it is.

    After -- all is text, such as a question that begins with a dash.

    Example: pathweave ask runs/mcl_mini --image photo.jpg "What is in the picture?"

    Example: pathweave ask runs/rgbd --depth map.png --companion photo.jpg "What is it?"

    Example: pathweave ask --base Salesforce/instructblip-vicuna-7b --image photo.jpg "What is it?"
    """
    # Before the import of torch: too few words are told at once.
    run, parts = parse_words(words, has_run=base is None)
    import_models_quickly()
    from pathweave.runs.assistant import load, load_alone

    assistant = load(run) if base is None else load_alone(base)
    answer = assistant.ask([parts], max_tokens, beams, path, blind)[0]
    result = {"answer": answer, "prompt": parts}
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json.dumps(result, ensure_ascii=not is_unicode) if as_json else answer)


def parse_words(words: list[str], has_run: bool = True) -> tuple[str, list[dict[str, str]]]:
    """Split ``DIR --modality file ... text`` into the directory and content parts.

    Args:
        words: The words.
        has_run: Whether they begin with a directory; it is empty otherwise.

    Raises:
        RunError: If the directory, a file, every part, or the medium of a companion is missing.

    Example:
        >>> parse_words(["run", "--point-cloud", "a.ply", "What is it?"])[1][0]
        {'type': 'point_cloud', 'path': 'a.ply'}
    """
    media: list[dict[str, str]] = []
    plain: list[str] = []
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise RunError(
                f"the words of ask must be UTF-8, got {word!a}; correct the terminal's "
                "encoding, or rename the file"
            )
    rest = iter(words)
    for word in rest:
        if word == "--":
            plain.extend(rest)
        elif word.startswith("--"):
            _add_medium(media, word.removeprefix("--"), rest)
        else:
            plain.append(word)
    if has_run and (not plain or (len(plain) < 2 and not media)):
        raise RunError("ask must be given DIR and a medium or a text, got too little; see --help")
    run, text = (plain[0], plain[1:]) if has_run else ("", plain)
    return run, media + ([{"type": "text", "text": " ".join(text)}] if text else [])


def _add_medium(media: list[dict[str, str]], word: str, rest: Iterator[str]) -> None:
    """Add the medium, or its companion, that an option names."""
    option, equals, value = word.partition("=")
    file = value if equals else next(rest, None)
    if not file or (not equals and file == "--"):
        raise RunError(f"--{option} must be followed by a file, got nothing")
    if option != "companion":
        media.append({"type": option.replace("-", "_"), "path": file})
    elif media and "companion" not in media[-1]:
        media[-1]["companion"] = file
    else:
        raise RunError(
            f"--companion must follow the medium that it belongs to, got {file!r} after none; "
            "write --MODALITY FILE --companion FILE"
        )
