"""The option ``--trust-code``, of every command that may be given a recipe that names code."""

from typing import Annotated

import typer


def _trust(is_given: bool) -> bool:
    if is_given:
        from pathweave.parts import trust_code

        trust_code()
    return is_given


TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        callback=_trust,  # which does all that is to be done
        help="Run code that a recipe or a run names as package.module:name (docs/own_parts.md).",
    ),
]
