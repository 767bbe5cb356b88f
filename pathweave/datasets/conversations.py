"""Importer of conversations: LLaVA, ShareGPT, and lists of parts as OpenAI has them.

A conversation becomes one sample for each answer in it, with all that was said before as its
prompt, so that every answer is learnt. Media are named beside the conversation (``image: a.png``,
``videos: [a.mp4, b.mp4]``) and their places in the text are marked (``<image>``), or they are
parts of a message.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from os.path import normpath
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.data.utf8 import printable
from pathweave.datasets.declaration import Layout, datasets
from pathweave.datasets.media_files import MissingError, is_file, prefix_of
from pathweave.datasets.patterns import check_path, names
from pathweave.datasets.records import Advance, Record, read_records
from pathweave.errors import ManifestError, MediaError

_ANSWERS = ("gpt", "assistant", "bot", "chatgpt", "bing", "bard", "model")
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(_ANSWERS, "assistant"),
    "system": "system",
}
_MARK = re.compile(r"<([a-z][a-z0-9_]*)>")
_FILE = re.compile(r"[^\s]+\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)

# Fields of a record that are no media, whatever they hold.
_OTHERS = ("id", "conversations", "messages", "conversation", "system", "source", "tools")


def read_conversations(
    source: Path,
    media: Path,
    base: Path,
    modality: str | None,
    licence: str | None,
    advance: Advance,
) -> Iterator[Record]:
    """Yield one sample for each answer of each conversation, and what is wrong.

    Args:
        source: The file, a JSON list or JSON lines.
        media: Directory that the paths of media are relative to.
        base: Directory that the paths in samples are to be relative to.
        modality: The type of all media; None takes the name in the marks or of the part.
        licence: Licence of the samples.
        advance: Called with the number of KiB read since the last call.

    Raises:
        ManifestError: If the file cannot be read, or the path to the media is not UTF-8.
    """
    prefix, base = prefix_of(media, base), base.resolve()
    about = {"licence": licence, "source": printable(source.name)}
    layout = Layout(format="jsonl" if source.suffix.lower() == ".jsonl" else "json")
    for number, record in enumerate(read_records(source, layout, advance), start=1):
        if record.kind != "usable":
            yield record
            continue
        try:
            turns = _turns(record.values)
            # For so many samples a conversation stands that cannot be used.
            record.count = sum(role == "assistant" for role, _ in turns) or 1
            messages = _messages(turns, record.values, prefix, modality)
        except (ManifestError, ValidationError) as error:
            yield record.fail(error)
            continue
        # Published ids are not always unique: LLaVA names a conversation by its picture.
        shown = str(record.values.get("id") or number)
        ends = [end for end, said in enumerate(messages, start=1) if said.role == "assistant"]
        for count, end in enumerate(ends, start=1):
            built = replace(record, count=1)
            try:
                sample_id = f"{number}" if len(ends) == 1 else f"{number}-{count}"
                said = tuple(messages[:end])
                built.sample = Sample(id=sample_id, messages=said, object=shown, **about)
                for path in (part.path for turn in said for part in turn.content if part.path):
                    # The directory of the manifest may not be there yet, so ".." is not left to
                    # the disk.
                    if not is_file(Path(normpath(base / path))):
                        raise MissingError(f"no file {path:.80}")
            except (MediaError, ValidationError) as error:
                built = built.fail(error)
            yield built


def _turns(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return who says what in a record, from the first question on."""
    turns = values.get("conversations") or values.get("messages") or values.get("conversation")
    if not isinstance(turns, list) or not turns:
        raise ManifestError(
            f"a record must have a list conversations or messages, got the fields {names(values)}"
        )
    found = []
    if isinstance(values.get("system"), str) and values["system"]:
        found.append(("system", values["system"]))
    for turn in turns:
        speaker = turn.get("from") or turn.get("role") if isinstance(turn, Mapping) else None
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise ManifestError(f"a speaker must be one of {[*_ROLES]}, got {speaker!r:.40}")
        found.append((_ROLES[speaker], turn.get("value", turn.get("content"))))
    # Some conversations begin in the middle: an answer to nothing that was asked is no sample.
    asked = next((at for at, (role, _) in enumerate(found) if role == "user"), len(found))
    return [turn for at, turn in enumerate(found) if at > asked or turn[0] != "assistant"]


def _messages(
    turns: list[tuple[str, Any]], values: Mapping[str, Any], prefix: str, modality: str | None
) -> list[Message]:
    """Return what is said and shown in a conversation."""
    texts = [said for role, said in turns if role == "user" and isinstance(said, str)]
    words = Counter(word for text in texts for word in _MARK.findall(text))
    known = {modality, *_known_kinds()}
    marks = [word for word in words if word in known or _has(values, word)]
    kinds = marks or [modality] * (modality is not None)
    marked = {name for kind in kinds for name in (kind, f"{kind}s")}
    if name := next((name for name in values if name not in marked and _has(values, name)), None):
        before = f"give --modality {name.removesuffix('s')} to put them before the question"
        raise ManifestError(
            f"media must have a mark in the text, such as <{name}>, got the field {name!r} and "
            f"none; {'add one' if kinds else before}"
        )
    waiting = {kind: [*_named(values, kind)] for kind in kinds}
    for kind, paths in waiting.items():
        if len(paths) < words[kind]:
            got = f"got {len(paths) or 'none'} for more marks"
            raise ManifestError(f"there must be a medium for every <{kind}>, {got}")
    contents = [[*_content(said, role == "user", marks, waiting)] for role, said in turns]
    roles = [role for role, _ in turns]
    if "assistant" not in roles:
        raise ManifestError("a conversation must hold a question and then an answer, got neither")
    # Media without a mark are put before the first question.
    contents[roles.index("user")][:0] = [(kind, x) for kind in kinds for x in waiting[kind]]
    messages = []
    for role, content in zip(roles, contents, strict=True):
        parts = [
            Part(type="text", text=said)
            if isinstance(said, str)
            else Part(type=modality or said[0], path=prefix + check_path(said[1]))
            for said in content
        ]
        messages.append(Message(role=cast(Any, role), content=tuple(parts)))
        if role == "assistant" and not all(part.text for part in parts):
            raise ManifestError("an answer must hold words, got an empty text")
    return messages


def _content(
    said: object, may_show: bool, marks: list[str], waiting: dict[str, list[Any]]
) -> Iterator[str | tuple[str, Any]]:
    """Yield texts, and kind and path of the media between them."""
    if isinstance(said, str):
        pieces = re.split(f"<({'|'.join(marks)})>", said) if may_show and marks else [said]
        for at, piece in enumerate(pieces):
            if at % 2:
                yield piece, waiting[piece].pop(0)
            elif piece.strip() or len(pieces) == 1:
                yield piece.strip() if may_show else piece
        return
    if not isinstance(said, list) or not said:
        raise ManifestError(f"what is said must be text or a list of parts, got {said!r:.60}")
    for part in said:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ManifestError(f"a part must be an object with a type, got {part!r:.60}")
        if part["type"] in ("text", "input_text", "output_text"):
            yield str(part.get("text", ""))
        else:
            yield _named_by_part(part)


def _named_by_part(part: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what kind of medium a part is (``x``, ``x_url`` or ``input_x``), and its path."""
    kind = part["type"].removesuffix("_url").removeprefix("input_")
    value = part.get(part["type"], part.get(kind, part.get("path", part.get("url"))))
    if isinstance(value, Mapping):
        if "data" in value:
            raise ManifestError("a medium must be a file, got its data; save it and name the file")
        value = value.get("url", value.get("path"))
    return kind, value


def _named(values: Mapping[str, Any], kind: str) -> list[Any]:
    named = values.get(kind) or values.get(f"{kind}s") or []
    return named if isinstance(named, list) else [named]


def _has(values: Mapping[str, Any], name: str) -> bool:
    """Return whether a field of that name holds names of files."""
    paths = [] if name in _OTHERS else [x for x in _named(values, name) if isinstance(x, str)]
    return bool(paths) and all(map(_FILE.fullmatch, paths))


@cache
def _known_kinds() -> frozenset[str]:
    return frozenset(kind for dataset in datasets().values() for kind in dataset.modalities)
