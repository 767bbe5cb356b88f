"""The messages of a sample: the content-part list of chat templates, one part type a modality.

One sample as JSON::

    {"id": "img-00012",
     "messages": [
       {"role": "user", "content": [{"type": "<modality>", "path": "a.png"},
                                    {"type": "text", "text": "What is it?"}]},
       {"role": "assistant", "content": "a shirt"}],
     "references": ["a shirt", "a blouse"], "source": "...", "licence": "..."}

A content that is a plain string stands for one text part.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pathweave.data.utf8 import find_bad_text
from pathweave.errors import ManifestError, RequestError
from pathweave.validation import explain, unknown


def _whole(text: str) -> str:
    if bad := find_bad_text(text):
        raise ValueError(f"text must be UTF-8, got half a character in {bad}")
    return text


# Half a character passes through everything up to the tokenizer, which it stops in mid-training.
Text = Annotated[str, AfterValidator(_whole)]
_Texts = Annotated[tuple[Text, ...], BeforeValidator(lambda value: () if value is None else value)]


class Part(BaseModel, frozen=True, extra="forbid"):
    """A piece of a message: text, or the path of a medium.

    Args:
        type: ``text``, or the name of a modality.
        text: The text; of text parts only.
        path: Where the medium is; of all other parts. Relative to the manifest as a rule;
            ``media.parquet#KEY`` is a row of a media store.
        companion: A second file of the same medium, such as the picture taken beside a map of
            distances; for decoders that take a pair.

    Example:
        >>> Part(type="text", text="What is it?").is_text
        True
    """

    type: str = Field(min_length=1)
    text: Text | None = None
    path: str | None = Field(None, min_length=1)
    companion: str | None = Field(None, min_length=1)

    @property
    def is_text(self) -> bool:
        """Return whether this is a text part."""
        return self.type == "text"

    @model_validator(mode="after")
    def _check_fields(self) -> "Part":
        needed, other = ("text", "path") if self.is_text else ("path", "text")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"a part of type {self.type!r} must have {needed!r} and no {other!r}")
        if self.is_text and self.companion is not None:
            raise ValueError("a part of type 'text' must have no 'companion'")
        return self


class Message(BaseModel, frozen=True, extra="forbid"):
    """One turn of a conversation.

    Args:
        role: Who speaks.
        content: What is said and shown, in order.

    Example:
        >>> Message(role="assistant", content="a shirt").content
        (Part(type='text', text='a shirt', path=None, companion=None),)
    """

    role: Literal["system", "user", "assistant"]
    content: tuple[Part, ...] = Field(min_length=1)

    @field_validator("content", mode="before")
    @classmethod
    def _from_string(cls, content: object) -> object:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @model_validator(mode="after")
    def _check_answer(self) -> "Message":
        if self.role == "assistant" and not all(part.is_text for part in self.content):
            raise ValueError("an assistant turn must consist of text parts")
        return self


class Sample(BaseModel, frozen=True, extra="ignore"):
    """One row of a manifest.

    Args:
        id: Name of the sample, unique in its manifest.
        messages: The conversation; it must have a user turn.
        references: All accepted answers, for evaluation; the answer itself if not given.
        choices: Candidates to rank by likelihood, if the task has a fixed list.
        object: Name of the thing shown; samples of one object must not be split.
        source: Where the media come from.
        licence: Licence of the media, as an SPDX identifier where there is one.
        attribution: Whom to name when showing the media.

    Example:
        >>> sample = Sample.model_validate({"id": "a", "messages": [
        ...     {"role": "user", "content": "Say hello."},
        ...     {"role": "assistant", "content": "hello"}]})
        >>> sample.answer
        'hello'
    """

    id: str = Field(min_length=1)
    messages: tuple[Message, ...] = Field(min_length=1)
    references: _Texts = ()
    choices: _Texts = ()
    object: Text | None = None
    source: Text | None = None
    licence: Text | None = None
    attribution: Text | None = None

    @model_validator(mode="after")
    def _check_roles(self) -> "Sample":
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("messages must have a user turn")
        # Alone, a part may name any file of the disk; in a manifest its name has to be text.
        for part in (part for message in self.messages for part in message.content):
            _whole(f"{part.type} {part.path} {part.companion}")
        return self

    @property
    def prompt(self) -> list[Part]:
        """Return the parts of all turns before the last assistant turn, in order."""
        return [part for message in self.turns for part in message.content]

    @property
    def turns(self) -> tuple[Message, ...]:
        """Return the turns before the last assistant turn, in order."""
        return self.messages[: self._answer_index()]

    @property
    def answer(self) -> str:
        """Return the text of the last assistant turn.

        Raises:
            ManifestError: If there is no assistant turn.
        """
        index = self._answer_index()
        if index is None:
            raise ManifestError(
                f"sample {self.id!r} must have an assistant turn to learn from, got user turns "
                "only; add the answer, or use the sample for inference only"
            )
        return "".join(part.text or "" for part in self.messages[index].content)

    def _answer_index(self) -> int | None:
        roles = [message.role for message in self.messages]
        return len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else None


def parse_sample(row: Mapping[str, Any], place: str, exact: bool = False) -> Sample:
    """Check a row and return it as a sample; fields with other names are left out.

    Args:
        row: The fields, as read from JSON or Parquet.
        place: Where the row is, for error messages.
        exact: Whether there must be no fields with other names.

    Raises:
        ManifestError: If a field is missing, misspelt or of the wrong type.
    """
    for name in sorted(row.keys() - Sample.model_fields.keys()):
        # A misspelt field would otherwise vanish without a word.
        if exact or get_close_matches(name, Sample.model_fields, n=1, cutoff=0.8):
            raise ManifestError(f"{place}: {unknown('a field', name, Sample.model_fields)}")
    try:
        return Sample.model_validate(row)
    except ValidationError as error:
        reason = explain(error, Sample)
        raise ManifestError(f"{place}: {reason}; correct the row or remove it") from error


def parse_question(content: object, place: str) -> tuple[Message, ...]:
    """Check a question and return its turns.

    Args:
        content: Parts as mappings, or a string, which stands for one text part; or turns, as
            mappings with a role and a content.
        place: Which question it is, for error messages.

    Raises:
        RequestError: If there is no part, or one is misspelt, incomplete or of the wrong type, or
            the last turn is not of the user.

    Example:
        >>> parse_question("What is it?", "question 1")[0].content
        (Part(type='text', text='What is it?', path=None, companion=None),)
    """
    parts = content if isinstance(content, Sequence) and not isinstance(content, str) else ()
    has_turns = any(isinstance(part, Mapping) and "role" in part for part in parts)
    turns: Any = content if has_turns else [{"role": "user", "content": content}]
    try:
        messages = tuple(Message.model_validate(turn) for turn in turns)
    except ValidationError as error:
        raise RequestError(f"{place}: {explain(error, Message)}; correct the part") from error
    if messages[-1].role != "user":
        raise RequestError(
            f"{place}: the last turn must be of the user, got {messages[-1].role!r}; add what is "
            "to be answered"
        )
    return messages
