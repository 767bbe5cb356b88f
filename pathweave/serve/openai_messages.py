"""Messages of OpenAI's clients as ours, and refusals in the shape that those clients know."""

import binascii
import json
import mimetypes
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from pathweave.decoders import Clip, Decoder, Picture, Points, Recording, Sound, Values
from pathweave.errors import (
    MediaError,
    PathError,
    PathWeaveError,
    RecipeError,
    RequestError,
    RunError,
)
from pathweave.serve.engine import EngineError, OverloadError
from pathweave.validation import unknown

URL = "_url"
TEXTS = ("text", "input_text", "output_text")
ROLES = ("system", "user", "assistant")
# Which decoders read what a MIME type says, where no modality bears its name.
READ_BY: dict[str, tuple[type[Decoder], ...]] = {
    "image/": (Picture,),
    "video/": (Clip,),
    "audio/": (Sound,),
    "model/": (Points,),
    "text/csv": (Recording,),
    "application/x-npy": (Values, Points, Recording),
}
NAMES = mimetypes.MimeTypes()
for _mime, _ending in (
    *(("model/ply", ".ply"), ("model/off", ".off"), ("model/obj", ".obj"), ("model/stl", ".stl")),
    *(("application/x-npy", ".npy"), ("audio/flac", ".flac"), ("text/csv", ".csv")),
):
    NAMES.add_type(_mime, _ending)


class RefusedError(PathWeaveError):
    """A request that is refused with a status of HTTP.

    Args:
        message: The rule, the value found, the remedy.
        status: The status.
        code: A word for programs.
    """

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def refusal(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body with which an error is told to a client."""
    code, kind = None, "invalid_request_error"
    if isinstance(error, RefusedError):
        status, code = error.status, error.code
        kind = {401: "authentication_error"}.get(status, kind if status < 500 else "server_error")
    elif isinstance(error, OverloadError):
        status, kind, code = 429, "rate_limit_error", "overloaded"
    elif isinstance(error, EngineError):
        status, kind = 503, "server_error"
    elif isinstance(error, RunError):
        status, code = 400, "context_length_exceeded"
    elif isinstance(error, (MediaError, PathError, RecipeError, RequestError)):
        status, code = 400, "bad_medium" if isinstance(error, MediaError) else None
    else:
        status, kind = 500, "server_error"
    message = str(error) if isinstance(error, PathWeaveError) else _crashed(error)
    told = message.encode("utf-8", "backslashreplace").decode()  # half a character is none to send
    return status, {"error": {"message": told, "type": kind, "param": None, "code": code}}


def _crashed(error: Exception) -> str:
    return f"a request must not fail here, got {type(error).__name__}; report it with the log"


def turns_of(
    messages: list[Any], reads: Mapping[str, Decoder], max_messages: int, max_parts: int
) -> list[dict[str, Any]]:
    """Return turns as ``Assistant.prompt`` takes them, from messages of OpenAI's API.

    A medium at a foreign address has it as ``url`` in place of ``data``.

    Args:
        messages: The messages.
        reads: Decoders of the modalities that are read.
        max_messages: Most messages.
        max_parts: Most parts of a message.

    Raises:
        RequestError: If a message or a part is malformed, or there are too many.
        MediaError: If a data URI is broken.
    """
    if not 1 <= len(messages) <= max_messages:
        raise RequestError(
            f"the request must have 1 to {max_messages} messages, got {len(messages):,}; send the "
            "last ones"
        )
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages, start=1):
        turn = _turn(message, f"the request, turn {number}", reads, max_parts)
        if turn["role"] == "system" and any(each["role"] != "system" for each in turns):
            raise RequestError(
                f"the request, turn {number}: a system message must come before all others, got "
                f"it after one of the {turns[-1]['role']}; put it first"
            )
        turns.append(turn)
    if turns[-1]["role"] != "user":
        raise RequestError(
            f"the request: the last turn must be of the user, got {turns[-1]['role']!r}; add what "
            "is to be answered"
        )
    return turns


def _turn(
    message: Any,  # noqa: ANN401 (whatever a client sent)
    place: str,
    reads: Mapping[str, Decoder],
    max_parts: int,
) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RequestError(f"{place} must be an object, got {message!r:.40}; see docs/serve.md")
    role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
    if role not in ROLES:
        raise RequestError(f"{place}: {unknown('role', str(role), ROLES)}")
    for field, value in message.items():
        if field not in ("role", "content", "type", "id", "status") and value:
            raise RequestError(
                f"{place}: field {field!r:.40} must be left out, got {value!r:.40}: nothing here "
                "reads it"
            )
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not len(content) <= max_parts:
        found = f"{len(content):,} parts" if isinstance(content, list) else f"{content!r:.40}"
        raise RequestError(
            f"{place}: content must be a text or a list of at most {max_parts} parts, got {found}; "
            "send less at once"
        )
    parts = [
        part_of(part, f"{place}, part {number}", reads)
        for number, part in enumerate(content, start=1)
    ]
    if not any(part.get("text", "a medium").strip() for part in parts):
        raise RequestError(
            f"{place} must have a text or a medium, got an empty one; fill it or leave it out"
        )
    if role != "user" and any("text" not in part for part in parts):
        raise RequestError(
            f"{place}: a message of role {role!r} must be text, got a medium; show it as the user"
        )
    return {"role": role, "content": parts}


def part_of(
    part: Any,  # noqa: ANN401 (whatever a client sent)
    place: str,
    reads: Mapping[str, Decoder],
) -> dict[str, Any]:
    """Return a part as ours: text, or a medium with ``data``, or with ``url`` if it is elsewhere.

    Raises:
        RequestError: If it is malformed, or of no modality that is read.
        MediaError: If a data URI is broken.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXTS:
        if not isinstance(part.get("text"), str):
            raise RequestError(f"{place}: text must be a string, got {part.get('text')!r:.40}")
        return {"type": "text", "text": part["text"]}
    if kind == "input_audio":
        data = _field(part, kind, "data", place)
        return {
            "type": _known(kind.removeprefix("input_"), place, reads),
            "data": _bytes(data, place),
        }
    if kind in ("file", "input_file"):
        inner = part.get("file", part)
        uri = _field({"file": inner}, "file", "file_data", place)
        return _at(uri, None, place, reads, str(inner.get("filename", "")))
    if kind == "input_image":
        kind, part = "image_url", {"image_url": part.get("image_url")}
    name = str(kind).removesuffix(URL)
    if kind == name + URL and (kind == "image_url" or name in reads):
        return _at(_field(part, kind, "url", place), name, place, reads)
    kinds = ["text", "input_audio", "file", *(name + URL for name in reads)]
    raise RequestError(f"{place}: {unknown('type', str(kind)[:80], kinds)}")


def _field(part: Mapping[str, Any], kind: str, field: str, place: str) -> str:
    """Return what stands at a field of the object that a part holds, or the object if a string."""
    inner = part.get(kind)
    value = inner.get(field) if isinstance(inner, dict) else inner
    if not isinstance(value, str) or not value:
        raise RequestError(
            f"{place}: {kind} must be an object with the string {field!r}, got {inner!r:.40}"
        )
    return value


def _known(name: str, place: str, reads: Mapping[str, Decoder]) -> str:
    if name not in reads:
        raise PathError(f"{place}: {unknown('a medium', name[:80], reads)}")
    return name


def _at(
    uri: str, name: str | None, place: str, reads: Mapping[str, Decoder], file: str = ""
) -> dict[str, Any]:
    """Return the medium at an address; a picture or a file may be another by what its URI says."""
    if not uri.startswith("data:"):
        if name is None:
            raise RequestError(
                f"{place}: file_data must be a data URI, got {uri!r:.40}; write "
                "data:MIME;base64,..."
            )
        return {"type": _known(name, place, reads), "url": uri}
    head, comma, body = uri.removeprefix("data:").partition(",")
    if not comma:
        raise MediaError(f"{place} must be a whole data URI, got no comma in {uri!r:.40}")
    mime, *rest = (word.strip() for word in head.split(";"))
    hints = dict(word.partition("=")[::2] for word in rest)
    if name is None or name + URL == "image_url":
        name = hints.get("modality") or _hinted(mime, file, name, place, reads)
    data = _bytes(body, place) if "base64" in hints else unquote_to_bytes(body)
    return {"type": _known(name, place, reads), "data": data}


def _hinted(
    mime: str, file: str, name: str | None, place: str, reads: Mapping[str, Decoder]
) -> str:
    """Return the modality that a MIME type or else the name of a file speaks of."""
    if mime in ("", "application/octet-stream"):
        mime = NAMES.guess_type(file)[0] or ""
    if not mime and name is not None:
        return name
    if (major := mime.partition("/")[0]) in reads:
        return major
    kinds = next((kinds for start, kinds in READ_BY.items() if mime.startswith(start)), ())
    found = [each for each, decoder in reads.items() if isinstance(decoder, kinds)]
    if len(found) != 1:
        what = f"{mime!r:.60} of {file!r:.60}" if file else f"{mime!r:.60}"
        raise RequestError(
            f"{place}: the type of a file must tell which of {sorted(reads)} it is, got {what}; "
            "name it: data:MIME;modality=NAME;base64,..."
        )
    return found[0]


def _bytes(text: str, place: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(
            f"{place} must be base64 without spaces and line breaks, got {text!r:.24} ({error}); "
            "encode the whole file anew"
        ) from error


def read_json(body: bytes) -> dict[str, Any]:
    """Return a body as an object without the fields that are null.

    Raises:
        RequestError: If it is none.
    """
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RequestError(
            f"the body must be JSON, got {body[:24]!r} ({reason:.120}); correct it"
        ) from error
    if not isinstance(tree, dict):
        raise RequestError(f"the body must be a JSON object, got {type(tree).__name__}; wrap it")
    return {field: value for field, value in tree.items() if value is not None}
