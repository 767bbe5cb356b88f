"""Importer of conversations: LLaVA, ShareGPT, ms-swift, and lists of parts as OpenAI has them.

A conversation becomes one sample for each answer in it, with all that was said before as its
prompt, so that every answer is learnt. Media are named beside the conversation (``image: a.png``,
``videos: [a.mp4, b.mp4]``) and their places in the text are marked (``<image>``), or they are
parts of a message.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any, cast

from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.datasets.declaration import datasets
from pathweave.datasets.media_files import FoundMedium, MediaPlaces
from pathweave.datasets.patterns import names
from pathweave.datasets.records import Record
from pathweave.errors import ManifestError, MediaError

_ANSWERS = ("gpt", "assistant", "bot", "chatgpt", "bing", "bard", "model")
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(_ANSWERS, "assistant"),
    "system": "system",
}
_MARK = re.compile(r"<([a-z][a-z0-9_]*)>")
_FILE = re.compile(r"[^\s]+\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)

# Fields that hold the turns of a record, and those that are no media, whatever they hold.
TURNS = ("conversations", "messages", "conversation", "texts")
_OTHERS = ("id", *TURNS, "system", "source", "tools")
# Places of names and boxes, which ms-swift writes in the words of the model that it trains.
_BOXES = ("<bbox>", "<ref-object>")


@dataclass(frozen=True)
class _Turn:
    """What is said or shown, and by whom; ``is_learnt`` is for answers."""

    role: str
    said: Any
    is_learnt: bool = True


def read_conversations(
    records: Iterable[Record],
    places: MediaPlaces,
    about: Mapping[str, str | None],
    columns: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Yield one sample for each answer of each conversation, and what is wrong.

    Args:
        records: The conversations.
        places: Where their media are.
        about: Licence and source of the samples.
        columns: The fields that hold media, and the name in the marks of each. There must be as
            many media as marks of a kind; without a mark they stand before the first question.
            None finds the fields by the marks and by the endings of files.
    """
    for number, record in enumerate(records, start=1):
        if record.kind != "usable":
            yield record
            continue
        try:
            turns = _turns(record.values)
            if reason := _left_out(turns, record.values):
                yield replace(record, kind="left_out", reason=reason)
                continue
            # For so many samples a conversation stands that cannot be used.
            record.count = sum(turn.role == "assistant" and turn.is_learnt for turn in turns) or 1
            messages, stored = _messages(turns, record.values, places, columns, number)
        except (ManifestError, ValidationError) as error:
            yield record.fail(error)
            continue
        # Published ids are not always unique: LLaVA names a conversation by its picture.
        shown = str(record.values.get("id") or number)
        ends = [
            end
            for end, turn in enumerate(turns, start=1)
            if turn.role == "assistant" and turn.is_learnt
        ]
        for position, end in enumerate(ends, start=1):
            built = replace(record, count=1)
            try:
                sample_id = f"{number}" if len(ends) == 1 else f"{number}-{position}"
                said = tuple(messages[:end])
                built.sample = Sample(id=sample_id, messages=said, object=shown, **about)
                parts = [part for turn in said for part in turn.content]
                places.check(parts)
                # Of one medium the first sample that shows it tells the store.
                built.media = tuple(stored.pop(p.path) for p in parts if p.path in stored)
            except (MediaError, ValidationError) as error:
                built = built.fail(error)
            yield built


def _turns(values: Mapping[str, Any]) -> list[_Turn]:
    """Return who says what in a record, from the first question on."""
    turns = next((values[name] for name in TURNS if values.get(name)), None) or _rounds(values)
    columns = [*turns.values()] if isinstance(turns, Mapping) else []
    if columns and all(isinstance(x, list) and len(x) == len(columns[0]) for x in columns):
        # Hugging Face datasets keep a sequence of objects as an object of lists.
        turns = [dict(zip(turns, row, strict=True)) for row in zip(*columns, strict=True)]
    if not isinstance(turns, list) or not turns:
        raise ManifestError(
            f"a record must have a list conversations or messages, got the fields {names(values)}"
        )
    found = []
    if isinstance(values.get("system"), str) and values["system"]:
        found.append(_Turn("system", values["system"]))
    for turn in turns:
        speaker = turn.get("from") or turn.get("role") if isinstance(turn, Mapping) else None
        pair = [name for name in _ROLES if name in turn] if isinstance(turn, Mapping) else []
        if speaker is None and pair:  # a question and its answer, under the names of the speakers
            found += [_Turn(_ROLES[name], turn[name]) for name in pair]
            continue
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise ManifestError(f"a speaker must be one of {[*_ROLES]}, got {speaker!r:.40}")
        said = turn.get("value", turn.get("content"))
        found.append(_Turn(_ROLES[speaker], said, turn.get("loss") not in (False, 0)))
    # Some conversations begin in the middle: an answer to nothing that was asked is no sample.
    asked = next((at for at, turn in enumerate(found) if turn.role == "user"), len(found))
    return [turn for at, turn in enumerate(found) if at > asked or turn.role != "assistant"]


def _rounds(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the turns of a record that has a field for the question and one for the answer."""
    history = values.get("history") or []
    asked, answer = values.get("query"), values.get("response")
    if "instruction" in values:
        texts = (values["instruction"], values.get("input"))
        asked = "\n".join(text for text in texts if isinstance(text, str) and text)
        answer = values.get("output")
    if not isinstance(asked, str) or answer is None:
        return []
    if not isinstance(history, list) or not all(
        isinstance(said, list) and len(said) == 2 for said in history
    ):
        raise ManifestError(f"history must be a list of pairs of texts, got {history!r:.60}")
    return [{"user": before, "assistant": said} for before, said in [*history, [asked, answer]]]


def _left_out(turns: list[_Turn], values: Mapping[str, Any]) -> str:
    """Return why nothing is to be learnt from a conversation, or an empty text."""
    answers = [turn for turn in turns if turn.role == "assistant"]
    if answers and not any(turn.is_learnt for turn in answers):
        return "no answer is to be learnt"
    return "the answer is marked as a bad one" if values.get("label") is False else ""


def _messages(
    turns: list[_Turn],
    values: Mapping[str, Any],
    places: MediaPlaces,
    columns: Mapping[str, str] | None,
    number: int,
) -> tuple[list[Message], dict[str | None, FoundMedium]]:
    """Return what is said and shown in a conversation, and by their paths what goes to a store."""
    contents: list[list[Any]] = [[*_content(turn.said)] for turn in turns]
    words = Counter[str]()
    for turn, content in zip(turns, contents, strict=True):
        may_mark = turn.role == "user" and (columns is not None or isinstance(turn.said, str))
        texts = [said for said in content if isinstance(said, str)] if may_mark else []
        words.update(word for text in texts for word in _MARK.findall(text))
        # A part that names no file takes the next one beside the conversation.
        words.update(x[0] for x in content if not isinstance(x, str) and x[1] is None)
    if columns is None:
        waiting = _found_by_marks(words, values, places.modality)
    else:
        waiting = _of_columns(words, values, columns)
        _check_texts(turns, contents, values, [kind for kind in waiting if waiting[kind]])
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise ManifestError("a conversation must hold a question and then an answer, got neither")
    marks = [kind for kind in waiting if words[kind]]
    for turn, content in zip(turns, contents, strict=True):
        if turn.role == "user":
            is_plain = isinstance(turn.said, str)
            split = marks if is_plain or columns is not None else []
            content[:] = _placed(content, split, waiting, is_plain)
    # Media without a mark are put before the first question.
    contents[roles.index("user")][:0] = [(kind, x) for kind in waiting for x in waiting[kind]]
    return _built(roles, contents, places, number)


def _built(
    roles: list[str], contents: list[list[Any]], places: MediaPlaces, number: int
) -> tuple[list[Message], dict[str | None, FoundMedium]]:
    """Return messages, and by their paths what goes to a store."""
    messages, stored, keys = [], dict[str | None, FoundMedium](), count(1)
    for role, content in zip(roles, contents, strict=True):
        parts = []
        for said in content:
            if isinstance(said, str):
                parts.append(Part(type="text", text=said))
                continue
            kind, value = said
            part, medium = places.part(kind, value, f"{number}-{next(keys)}")
            parts.append(part)
            if medium is not None:
                stored[part.path] = medium
        messages.append(Message(role=cast(Any, role), content=tuple(parts)))
        if role == "assistant" and not all(part.text for part in parts):
            raise ManifestError("an answer must hold words, got an empty text")
    return messages, stored


def _found_by_marks(
    words: Mapping[str, int], values: Mapping[str, Any], modality: str | None
) -> dict[str, list[Any]]:
    """Return the media beside a conversation by their kind, found by marks and endings of files."""
    known = {modality, *_known_kinds()}
    marks = [word for word in words if word in known or _has(values, word)]
    kinds = marks or ([modality] if modality else [])
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
    return waiting


def _of_columns(
    words: Mapping[str, int], values: Mapping[str, Any], columns: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Return the media beside a conversation by their kind, as many as there are marks."""
    waiting: dict[str, list[Any]] = {kind: [] for kind in columns.values()}
    for name, kind in columns.items():
        media = values.get(name)
        waiting[kind] += media if isinstance(media, list) else [media] * (media is not None)
    for kind, media in waiting.items():
        if words[kind] not in (0, len(media)):
            raise ManifestError(
                f"there must be a medium for every <{kind}> and a mark for every medium, got "
                f"{len(media)} for {words[kind]} marks"
            )
    return waiting


def _check_texts(
    turns: list[_Turn], contents: list[list[Any]], values: Mapping[str, Any], kinds: list[str]
) -> None:
    """Check that only users show media, and that no text has places of boxes."""
    for turn, content in zip(turns, contents, strict=True):
        said = "".join(text for text in content if isinstance(text, str))
        if turn.role != "user" and (kind := next((k for k in kinds if f"<{k}>" in said), None)):
            raise ManifestError(f"media must be shown by the user, got <{kind}> said by another")
        if values.get("objects") and (mark := next((m for m in _BOXES if m in said), None)):
            raise ManifestError(f"names and boxes must be written in the text, got {mark}")


def _content(said: object) -> Iterator[str | tuple[str, Any]]:
    """Yield texts, and kind and path of the media between them."""
    if isinstance(said, str):
        yield said
        return
    if not isinstance(said, list) or not said:
        raise ManifestError(f"what is said must be text or a list of parts, got {said!r:.60}")
    for part in said:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ManifestError(f"a part must be an object with a type, got {part!r:.60}")
        if part["type"] in ("text", "input_text", "output_text"):
            yield str(part.get("text") or "")
        else:
            yield _named_by_part(part)


def _placed(
    content: list[str | tuple[str, Any]],
    marks: list[str],
    waiting: dict[str, list[Any]],
    is_plain: bool,
) -> Iterator[str | tuple[str, Any]]:
    """Yield what a user says and shows, with media in the places of their marks."""
    for said in content:
        if not isinstance(said, str):
            kind, value = said
            yield kind, waiting[kind].pop(0) if value is None and waiting.get(kind) else value
            continue
        pieces = re.split(f"<({'|'.join(map(re.escape, marks))})>", said) if marks else [said]
        for at, piece in enumerate(pieces):
            if at % 2:
                yield piece, waiting[piece].pop(0)
            elif piece.strip() or len(pieces) == 1:
                yield piece.strip() if marks or is_plain else piece


def _named_by_part(part: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what kind of medium a part is (``x``, ``x_url`` or ``input_x``), and where it is."""
    kind = part["type"].removesuffix("_url").removeprefix("input_")
    told = {name: value for name, value in part.items() if value is not None}
    value = told.get(part["type"], told.get(kind, told.get("path", told.get("url"))))
    if isinstance(value, Mapping) and value.get("bytes") is None:
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


def usual_columns() -> dict[str, str]:
    """Return the usual names of fields that hold media, and the kind of each."""
    return {name: kind for kind in _known_kinds() for name in (kind, f"{kind}s")}


@cache
def _known_kinds() -> frozenset[str]:
    return frozenset(kind for dataset in datasets().values() for kind in dataset.modalities)
