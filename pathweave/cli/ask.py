"""``pathweave ask``: put a question about media to a model."""

import json
from typing import Annotated

import typer

from pathweave.errors import RunError


def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="DIR [--MODALITY FILE]... [TEXT]", help="See above.")
    ],
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 32,
    beams: Annotated[int, typer.Option(help="Beams of the search; 1 is greedy.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask about one or more media; every modality of the run is an option.

    Media are put to the model in the order given, then the text.

    Example: pathweave ask runs/mcl_mini --image photo.jpg "What is in the picture?"
    """
    run, parts = parse_words(words)
    from pathweave.assistant import load

    assistant = load(run)
    answer = assistant.ask([parts], max_tokens, beams)[0]
    result = {"answer": answer, "prompt": parts}
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else answer)


def parse_words(words: list[str]) -> tuple[str, list[dict[str, str]]]:
    """Split ``DIR --modality file ... text`` into the directory and content parts.

    Raises:
        RunError: If the directory, a file or every part is missing.

    Example:
        >>> parse_words(["run", "--point-cloud", "a.ply", "What is it?"])[1][0]
        {'type': 'point_cloud', 'path': 'a.ply'}
    """
    media: list[dict[str, str]] = []
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            plain.append(word)
            continue
        option, equals, value = word.removeprefix("--").partition("=")
        file = value if equals else next(rest, None)
        if not file:
            raise RunError(f"--{option} must be followed by a file, got nothing")
        media.append({"type": option.replace("-", "_"), "path": file})
    if not plain or (len(plain) < 2 and not media):
        raise RunError("ask must be given DIR and a medium or a text, got too little; see --help")
    text = " ".join(plain[1:])
    return plain[0], media + ([{"type": "text", "text": text}] if text else [])
