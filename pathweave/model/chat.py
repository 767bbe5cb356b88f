"""Conversations, laid out as a language model or vision LLM was taught them.

The chat template says what stands around the words, the processor reads the media that the base
knows by itself. A medium of a path is one special token in the text, which a private copy of the
tokenizer knows; afterwards it is the medium's place. The same token keeps the place of words that
would be read as special tokens: they are put in as plain text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Literal, NamedTuple, cast

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from pathweave.errors import RecipeError, RequestError
from pathweave.model.prompt import Ids, Medium

Reader = ProcessorMixin | PreTrainedTokenizerBase
PLACE = "<|place|>"
# What a processor makes beside what the model reads: padding is ours, and no answer is learnt here.
NOT_READ = ("attention_mask", "labels")


@dataclass(frozen=True)
class Native:
    """A medium that the base reads by itself, through its own processor.

    Attributes:
        kind: What it is, as the processor calls it: one of the model's ``input_modalities``.
        data: What the processor takes, such as a picture of Pillow.
    """

    kind: str
    data: Any


@dataclass(frozen=True)
class Turn:
    """The start of a turn of a conversation; what follows in the prompt belongs to it.

    Attributes:
        role: Who speaks.
    """

    role: Literal["system", "user", "assistant"]


ChatPrompt = Sequence[str | Medium | Native | Turn]


@dataclass(frozen=True)
class LaidOut:
    """Prompts as a language model reads them.

    Attributes:
        rows: Of each prompt, token ids and the media of paths in order.
        alongside: Of each prompt, what runs along its tokens beside the ids, by the name under
            which the model takes it. A medium has one entry, the one of its place. Padding is 0.
        inputs: What the processor made of the base's own media, of all prompts together.
    """

    rows: list[list[Ids | Medium]]
    alongside: list[dict[str, Tensor]]
    inputs: dict[str, Tensor]


def lay_out_chats(
    prompts: Sequence[ChatPrompt], processor: Reader, cues: Mapping[str, str]
) -> LaidOut:
    """Return prompts as the base was taught to read them, up to where its answer starts.

    A prompt without a ``Turn`` is one turn of the user, and so is what stands before the first.
    Each prompt gives what it gives alone. Texts and media of paths that follow each other are
    joined by spaces; each medium comes right after its cue. The name of a special token in a text
    is plain text.

    Args:
        prompts: Text, media of paths and media of the base, with the turns they belong to.
        processor: The base's processor, or the tokenizer of one that reads text alone.
        cues: Words put before a medium of a path, by modality or else path.

    Raises:
        RecipeError: If there is no chat template, or one that leaves texts out, or the tokenizer
            takes no special token more.
        RequestError: If a prompt ends with a turn of the assistant, or holds what the template or
            the processor refuses.
    """
    if not prompts:
        return LaidOut([], [], {})
    template = _chat_template(processor)
    if isinstance(processor, ProcessorMixin):
        marks = tuple(processor.all_special_multimodal_tokens)
        private = _private(processor.tokenizer, template, marks)
        reader: Reader = copy(processor)
        reader.tokenizer = private.tokenizer
    else:
        private = _private(processor, template, ())
        reader = private.tokenizer
    with private.lock:  # a tokenizer keeps its padding as a setting
        writers = [_Writer(private, reader, cues) for _ in prompts]
        chats = [w.conversation(prompt) for w, prompt in zip(writers, prompts, strict=True)]
        tensors, inputs = _read(chats, reader, template)
    names = {name: tensor for row in tensors for name, tensor in row.items()}
    rows, alongside = [], []
    for row, writer in zip(tensors, writers, strict=True):
        for name, other in names.items():  # a row without media has none of their marks
            row.setdefault(name, other.new_zeros(len(row["input_ids"]), *other.shape[1:]))
        pieces, index = _fill(row.pop("input_ids").tolist(), private.place, writer.fillings)
        rows.append(pieces)
        alongside.append({name: tensor[index] for name, tensor in row.items()})
    return LaidOut(rows, alongside, inputs)


class _Private(NamedTuple):
    """A copy of a tokenizer that knows one token more."""

    tokenizer: PreTrainedTokenizerBase
    text: str  # of the token that keeps a place
    place: int  # its id
    reserved: re.Pattern[str]  # texts that have a meaning beside their words
    reserved_ids: frozenset[int]
    lock: Lock


@lru_cache(maxsize=4)
def _private(original: PreTrainedTokenizerBase, template: str, marks: tuple[str, ...]) -> _Private:
    tokenizer, text = deepcopy(original), PLACE
    while text in tokenizer.get_vocab():
        text = f"<{text}>"
    if not _takes(tokenizer, text):
        raise RecipeError(
            f"the tokenizer of a base must take one more special token, got a "
            f"{type(original).__name__} that does not; choose a base with another kind of tokenizer"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = text
    tokenizer.model_input_names = [*tokenizer.model_input_names, "attention_mask"]
    added = {
        token.content: id
        for id, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content.strip() and token.content in template)
    }
    longest_first = sorted({*added, *marks}, key=len, reverse=True)
    reserved = re.compile("|".join(map(re.escape, longest_first)))
    ids = frozenset(added.values())
    return _Private(tokenizer, text, added[text], reserved, ids, Lock())


def _takes(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    try:
        return tokenizer.add_tokens([text], special_tokens=True) == 1
    except (NotImplementedError, ValueError):
        return False


class _Writer:
    """Writes one prompt as messages, and notes what belongs in each place of its text."""

    def __init__(self, private: _Private, reader: Reader, cues: Mapping[str, str]) -> None:
        self.private, self.reader, self.cues = private, reader, cues
        self.fillings: list[Ids | Medium] = []

    def conversation(self, prompt: ChatPrompt) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if not prompt or not isinstance(prompt[0], Turn):
            messages.append({"role": "user", "content": []})
        for piece in prompt:
            if isinstance(piece, Turn):
                messages.append({"role": piece.role, "content": []})
                continue
            content = messages[-1]["content"]
            if isinstance(piece, Native):
                content.append({"type": self._known(piece.kind), piece.kind: piece.data})
                continue
            text = self._text(piece)
            if content and content[-1]["type"] == "text":
                said = content[-1]["text"]
                space = "" if said[-1:].isspace() or text[:1].isspace() else " "
                content[-1]["text"] = said + space + text if said and text else said + text
            else:
                content.append({"type": "text", "text": text})
        for message in messages:
            message["content"] = message["content"] or [{"type": "text", "text": ""}]
        if messages[-1]["role"] == "assistant":
            raise RequestError(
                "a conversation must end with what is to be answered, got a turn of the assistant "
                "at its end; leave it out, or add a turn of the user"
            )
        return messages

    def _known(self, kind: str) -> str:
        # Every processor of transformers has the token of each kind of media under such a name.
        token = getattr(self.reader, f"{kind}_token", None)
        if token is None or not isinstance(self.reader, ProcessorMixin):
            raise RequestError(
                f"a base must be given media that its processor reads, got {kind!r} for "
                f"{type(self.reader).__name__}; choose another base, or learn a path for it"
            )
        return kind

    def _text(self, piece: str | Medium) -> str:
        if isinstance(piece, str):
            return self._plain(piece)
        cue = self._plain(self.cues.get(piece.modality or piece.path, ""))
        self.fillings.append(piece)
        return cue + self.private.text

    def _plain(self, text: str) -> str:
        def keep_place(found: re.Match[str]) -> str:
            self.fillings.append(_spelled(found[0], self.private))
            return self.private.text

        return self.private.reserved.sub(keep_place, text)


def _spelled(name: str, private: _Private) -> Ids:
    """Return the tokens of a special token's name as plain text: its letters, not itself."""
    tokenizer = private.tokenizer
    # Some tokenizers put a space before every text, so each part follows a line break.
    start = tokenizer.encode("\n", add_special_tokens=False)
    ids: list[int] = []
    for part in (name[:1], name[1:]):
        after = tokenizer.encode(f"\n{part}", add_special_tokens=False)
        goes_on = after[: len(start)] == start
        ids += after[len(start) :] if goes_on else tokenizer.encode(part, add_special_tokens=False)
    if not private.reserved_ids.isdisjoint(ids):
        raise RequestError(
            f"a text must hold no special token of the base that it cannot spell, got {name!r}; "
            "leave it out"
        )
    return tuple(ids)


def _chat_template(processor: Reader) -> str:
    own = getattr(processor, "tokenizer", processor).chat_template
    template = getattr(processor, "chat_template", None) or own
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise RecipeError(
            f"a base must have a chat template for conversations, got a {type(processor).__name__} "
            "without a default one; place its chat_template.jinja beside the tokenizer, or choose "
            "a chat model"
        )
    return str(template)


Chat = list[dict[str, Any]]
Rows = list[dict[str, Tensor]]


def _read(chats: list[Chat], reader: Reader, template: str) -> tuple[Rows, dict[str, Tensor]]:
    """Return what runs along the tokens of each chat, and what is made of the base's media."""
    media = [sum(map(_media_in, chat)) for chat in chats]
    chats, texts = _render(chats, reader, template)
    if not any(media):
        return _read_texts(chats, texts, reader, template), {}
    rule = f"a batch must be one that {type(reader).__name__} reads"
    uneven = len({*media}) > 1
    apart = "ask prompts with more or fewer media of the base apart"
    try:
        read = _process(chats, reader, template)
    except Exception as error:  # processors refuse in many ways
        remedy = f"give media as it reads them{', or ' + apart if uneven else ''}"
        raise RequestError(f"{rule}, got '{_line(error)}'; {remedy}") from error
    rows, inputs = _split(read, reader)
    # With several numbers a token, media are not among the tokens: all rows read across as many.
    if uneven and any(t.ndim > 1 for row in rows for t in row.values()):
        raise RequestError(f"{rule}, got prompts with {media} media of the base; {apart}")
    without = [i for i, count in enumerate(media) if not count]
    if without:  # some processors put a picture's marks into every row
        words = [chats[i] for i in without], [texts[i] for i in without]
        for i, row in zip(without, _read_texts(*words, reader, template), strict=True):
            rows[i] = row
    return rows, inputs


def _media_in(message: Mapping[str, Any]) -> int:
    return sum(part["type"] != "text" for part in message["content"])


def _render(chats: list[Chat], reader: Reader, template: str) -> tuple[list[Chat], list[str]]:
    """Return chats in the form that a template takes, and their texts."""
    forms = [chats]
    if not any(_media_in(message) for chat in chats for message in chat):
        as_words = [
            [{**message, "content": message["content"][0]["text"]} for message in chat]
            for chat in chats
        ]
        forms = [chats, as_words] if isinstance(reader, ProcessorMixin) else [as_words, chats]
    refused = None
    for form in forms:
        try:
            texts: Any = reader.apply_chat_template(
                form, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, TypeError) as error:
            refused = refused or error
            continue
        if all(map(_says, form, texts)):
            return form, texts
    if refused is not None:
        raise RequestError(
            f"a conversation must be one that the chat template of the base knows, got "
            f"'{_line(refused)}'; change its turns"
        ) from refused
    raise RecipeError(
        "the chat template of a base must say the words of a conversation, got one that does not; "
        "place its own chat_template.jinja beside the tokenizer"
    )


def _says(chat: Chat, text: str) -> bool:
    """Whether a text holds the words of a chat, and not the list they are in."""
    for message in chat:
        content = message["content"]
        parts = [] if isinstance(content, str) else [p for p in content if p["type"] == "text"]
        words = [content] if isinstance(content, str) else [part["text"] for part in parts]
        # Templates may shorten what the assistant has said, such as its thoughts.
        if message["role"] != "assistant" and not all(word.strip() in text for word in words):
            return False
        if any(repr(part) in text for part in parts):
            return False
    return True


def _process(chats: list[Chat], reader: Reader, template: str) -> Mapping[str, Any]:
    read: Any = reader.apply_chat_template(
        chats,
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )
    return cast(Mapping[str, Any], read)


def _read_texts(chats: list[Chat], texts: list[str], reader: Reader, template: str) -> Rows:
    tokenizer = reader.tokenizer if isinstance(reader, ProcessorMixin) else reader
    special = False
    if isinstance(reader, ProcessorMixin):
        try:
            return _split(_process(chats, reader, template), reader)[0]
        except ValueError:  # some processors refuse what has no media (PaliGemma's)
            special = not texts[0].startswith(str(tokenizer.bos_token))
    read = tokenizer(
        texts,
        add_special_tokens=special,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    return _split(read, tokenizer)[0]


def _split(read: Mapping[str, Any], reader: Reader) -> tuple[Rows, dict[str, Tensor]]:
    """Return what runs along the tokens of each row, without padding, and the rest."""
    mask = read["attention_mask"].bool()
    tensors = {n: t for n, t in read.items() if torch.is_tensor(t) and n not in NOT_READ}
    of_media = set(_media_names(reader))
    along = {n for n, t in tensors.items() if t.shape[:2] == mask.shape and n not in of_media}
    rows = [{n: tensors[n][i, kept] for n in tensors if n in along} for i, kept in enumerate(mask)]
    return rows, {name: tensor for name, tensor in tensors.items() if name not in along}


def _media_names(reader: Reader) -> Iterator[str]:
    if isinstance(reader, ProcessorMixin):
        for attribute in reader.get_attributes():
            if getattr(reader, attribute) is not reader.tokenizer:
                yield from getattr(reader, attribute).model_input_names


def _fill(
    ids: list[int], place: int, fillings: Sequence[Ids | Medium]
) -> tuple[list[Ids | Medium], list[int]]:
    """Return a row with its places filled, and for each of its entries where it comes from."""
    if ids.count(place) != len(fillings):
        raise RequestError(
            f"the chat template of the base must keep every medium of a path, got "
            f"{ids.count(place)} of {len(fillings)} in place; leave media out of the turns that it "
            "shortens"
        )
    waiting = iter(fillings)
    pieces: list[Ids | Medium] = []
    index: list[int] = []
    for at, token in enumerate(ids):
        filling = next(waiting) if token == place else (token,)
        if isinstance(filling, Medium):
            pieces.append(filling)
            index.append(at)
            continue
        if pieces and isinstance(pieces[-1], tuple):
            pieces[-1] = (*pieces[-1], *filling)
        else:
            pieces.append(filling)
        index += [at] * len(filling)
    return pieces, index


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
