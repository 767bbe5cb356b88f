"""Messages about names and fields that a user misspelt or filled in wrongly."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError


def unknown(what: str, value: str, valid: Iterable[str]) -> str:
    """Return the message for a name that is not one of ``valid``, with the nearest that is."""
    known = sorted(valid)
    return f"{what} must be one of {known}, got {value!r}{nearest(value, known)}"


def explain(error: ValidationError, schema: type[BaseModel], inside: str = "") -> str:
    """Return one line about the first problems of values that ``schema`` refuses.

    Args:
        error: What pydantic found.
        schema: The class that was validated; its fields are what a misspelt one is compared with.
        inside: Where the values stand in the user's file, such as ``modalities.image.training.``.
    """
    lines = []
    for problem in error.errors()[:3]:
        where = inside + ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(schema, problem["loc"][:-1])
            lines.append(unknown(f"field {where}", str(problem["loc"][-1]), known))
            continue
        message = problem["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        if problem["type"] not in ("value_error", "missing"):
            message += f", got {problem['input']!r:.60}"
        if problem["type"] == "literal_error":
            valid = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
            message += nearest(str(problem["input"]), valid)
        lines.append(f"{where}: {message}" if where else message)
    return "; ".join(lines)


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the end of a message that asks whether the most similar of ``known`` was meant."""
    near = get_close_matches(value, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fields_at(schema: Any, location: tuple[int | str, ...]) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the fields that are valid at a place below a schema."""
    for step in location:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_fields[str(step)].annotation
        else:  # the items of a container; its last argument is their type, or "..." of a tuple
            schema = [part for part in get_args(schema) if part is not ...][-1]
        while get_origin(schema) in (Union, UnionType, Annotated):
            schema = get_args(schema)[0]
    return schema.model_fields
