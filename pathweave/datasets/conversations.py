"""Importer of conversations: LLaVA, ShareGPT, and lists of parts as OpenAI has them.

A conversation becomes one sample for each answer in it, with all that was said before as its
prompt, so that every answer is learnt. Media are named beside the conversation (``image: a.png``,
``videos: [a.mp4, b.mp4]``) and their places in the text are marked (``<image>``), or they are
parts of a message.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pathweave.data.messages import Message, Part, Sample
from pathweave.datasets.declaration import datasets
from pathweave.datasets.records import Record
from pathweave.errors import ManifestError

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
}
_PLACE = re.compile(r"<([a-z][a-z0-9_]*)>")
_FILE = re.compile(r"[^\s]+\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)

# Fields of a record that are no media, whatever they hold.
_OTHERS = ("id", "conversations", "messages", "conversation", "system", "source", "tools")


def read_conversation(
    record: Record, number: int, prefix: str, modality: str | None, **about: str | None
) -> list[Sample]:
    """Return one sample for each answer of a conversation.

    Args:
        record: The record.
        number: Its number, from which ids are made.
        prefix: What is put before the paths of media, up to the directory they are relative to.
        modality: The type of all media; None takes the name in the marks or of the part.
        about: Licence and source of the samples.

    Raises:
        ManifestError: If it holds no conversation with an answer, or a medium cannot be used.
    """
    media = _Media(record.values, prefix, modality)
    turns = [
        (role, tuple(_content(said, media, role == "user"))) for role, said in _turns(record.values)
    ]
    asked = next((at for at, (role, _) in enumerate(turns) if role == "user"), len(turns))
    # Media without a mark are put before the first question.
    messages = [
        Message(role=role, content=(*media.rest(), *content) if at == asked else content)
        for at, (role, content) in enumerate(turns)
    ]
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not answers or answers[0] < asked:
        raise ManifestError("a conversation must hold a question and then an answer, got neither")
    if any(not part.text for end in answers for part in messages[end].content):
        raise ManifestError("an answer must hold words, got an empty text")
    # Published ids are not always unique: LLaVA names a conversation by its picture.
    return [
        Sample(
            id=f"{number}" if len(answers) == 1 else f"{number}-{count}",
            messages=tuple(messages[: end + 1]),
            object=str(record.values.get("id") or number),
            **about,
        )
        for count, end in enumerate(answers, start=1)
    ]


def _content(said: object, media: "_Media", may_show: bool) -> Iterator[Part]:
    if isinstance(said, str):
        yield from _marked(said, media) if may_show else [Part(type="text", text=said)]
        return
    if not isinstance(said, list) or not said:
        raise ManifestError(f"what is said must be text or a list of parts, got {said!r:.60}")
    for part in said:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ManifestError(f"a part must be an object with a type, got {part!r:.60}")
        if part["type"] in ("text", "input_text", "output_text"):
            yield Part(type="text", text=str(part.get("text", "")))
        else:
            yield media.part(*_named_by_part(part))


def _marked(text: str, media: "_Media") -> Iterator[Part]:
    """Yield the text around the marks and the media in their places."""
    at = 0
    for mark in _PLACE.finditer(text):
        if not media.is_kind(mark[1]):
            continue
        if before := text[at : mark.start()].strip():
            yield Part(type="text", text=before)
        yield media.take(mark[1])
        at = mark.end()
    if (after := text[at:].strip()) or at == 0:
        yield Part(type="text", text=after)


def place_medium(prefix: str, modality: str, path: object) -> Part:
    """Return the part of a medium that a record of another project names.

    Raises:
        ManifestError: If it is not the path of a file below the directory of media.
    """
    if not isinstance(path, str) or not path:
        raise ManifestError(f"a medium must be named by its path, got {path!r:.60}")
    if "://" in path or path.startswith("data:"):
        raise ManifestError(
            f"a medium must be a file, got {path[:60]!r}; download or unpack it and name the file"
        )
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise ManifestError(
            f"the path of a medium must stay below the directory of media, got {path[:80]!r}"
        )
    return Part(type=modality, path=prefix + path)


@cache
def _known_kinds() -> frozenset[str]:
    return frozenset(kind for dataset in datasets().values() for kind in dataset.modalities)


class _Media:
    """The media that a record names beside its conversation, taken in order."""

    def __init__(self, values: Mapping[str, Any], prefix: str, modality: str | None) -> None:
        self._values, self._prefix, self._modality = values, prefix, modality
        texts = [said for role, said in _turns(values) if role == "user" and isinstance(said, str)]
        marks = {mark: None for text in texts for mark in _PLACE.findall(text)}
        kinds = [mark for mark in marks if self.is_kind(mark)]
        if not kinds and modality:
            kinds = [modality]
        marked = {name for kind in kinds for name in (kind, f"{kind}s")}
        if name := next((name for name in values if name not in marked and self._has(name)), None):
            before = f"give --modality {name.removesuffix('s')} to put them before the question"
            raise ManifestError(
                f"media must have a mark in the text, such as <{name}>, got the field {name!r} and "
                f"none; {'add one' if kinds else before}"
            )
        self._taken = dict.fromkeys(kinds, 0)

    def is_kind(self, mark: str) -> bool:
        """Return whether a word in brackets is the mark of a medium and no other text."""
        return mark == self._modality or mark in _known_kinds() or self._has(mark)

    def part(self, kind: str, path: object) -> Part:
        return place_medium(self._prefix, self._modality or kind, path)

    def take(self, kind: str) -> Part:
        """Return the next medium of a kind."""
        number, named = self._taken[kind], self._named(kind)
        if number >= len(named):
            raise ManifestError(
                f"there must be a medium for every <{kind}>, got {len(named) or 'none'} for more "
                "marks"
            )
        self._taken[kind] += 1
        return self.part(kind, named[number])

    def rest(self) -> list[Part]:
        """Return the media that were not taken."""
        taken = self._taken.items()
        return [self.part(kind, path) for kind, n in taken for path in self._named(kind)[n:]]

    def _named(self, kind: str) -> list[Any]:
        named = self._values.get(kind) or self._values.get(f"{kind}s") or []
        return named if isinstance(named, list) else [named]

    def _has(self, name: str) -> bool:
        """Return whether a field of that name holds names of files."""
        named = [] if name in _OTHERS else self._named(name)
        paths = [path for path in named if isinstance(path, str)]
        return bool(paths) and all(_FILE.fullmatch(path) for path in paths)


def _turns(values: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    turns = values.get("conversations") or values.get("messages") or values.get("conversation")
    if not isinstance(turns, list) or not turns:
        raise ManifestError(
            "a record must have a list conversations or messages, got the fields "
            f"{', '.join(map(str, values))[:120]}"
        )
    found = []
    if isinstance(values.get("system"), str) and values["system"]:
        found.append(("system", values["system"]))
    for turn in turns:
        speaker = turn.get("from") or turn.get("role") if isinstance(turn, Mapping) else None
        if not isinstance(speaker, str) or speaker not in _ROLES:
            raise ManifestError(
                f"who speaks must be one of {', '.join(_ROLES)}, got {speaker!r:.40}"
            )
        found.append((_ROLES[speaker], turn.get("value", turn.get("content"))))
    # Some conversations begin in the middle: an answer to nothing that was asked is no sample.
    asked = next((at for at, (role, _) in enumerate(found) if role == "user"), len(found))
    return [turn for at, turn in enumerate(found) if at > asked or turn[0] != "assistant"]


def count_answers(values: Mapping[str, Any]) -> int:
    """Return for how many samples a conversation stands that cannot be used; at least one."""
    try:
        return sum(role == "assistant" for role, _ in _turns(values)) or 1
    except ManifestError:
        return 1


def _named_by_part(part: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what kind of medium a part is (``x``, ``x_url`` or ``input_x``), and its path."""
    kind = part["type"].removesuffix("_url").removeprefix("input_")
    value = part.get(part["type"], part.get(kind, part.get("path", part.get("url"))))
    if isinstance(value, Mapping):
        if "data" in value:
            raise ManifestError("a medium must be a file, got its data; save it and name the file")
        value = value.get("url", value.get("path"))
    return kind, value
