"""Conversations, laid out as a language model or vision LLM was taught them.

The chat template says what stands around the words, the processor reads the media that the base
knows by itself. A medium of a path is one special token in the text, which a private copy of the
tokenizer knows; afterwards it is the medium's place. The same token keeps the place of words that
would be read as special tokens: they are put in as plain text.
"""

import re
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from pathweave.errors import RecipeError, RequestError
from pathweave.model.chat_reader import Chat, Reader, chat_template, read_chats
from pathweave.model.prompt import Ids, Medium, Native, Prompt, Turn, token_ids

PLACE = "<|place|>"


@dataclass(frozen=True)
class LaidOutChats:
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
    prompts: Sequence[Prompt], processor: Reader, cues: Mapping[str, str]
) -> LaidOutChats:
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
        return LaidOutChats([], [], {})
    template = chat_template(processor)
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
        tensors, inputs = read_chats(chats, reader, template)
    names = {name: tensor for row in tensors for name, tensor in row.items()}
    rows, alongside = [], []
    for row, writer in zip(tensors, writers, strict=True):
        for name, other in names.items():  # a row without media has none of their marks
            row.setdefault(name, other.new_zeros(len(row["input_ids"]), *other.shape[1:]))
        pieces, index = _fill(row.pop("input_ids").tolist(), private.place, writer.fillings)
        rows.append(pieces)
        alongside.append({name: tensor[index] for name, tensor in row.items()})
    return LaidOutChats(rows, alongside, inputs)


class _Private(NamedTuple):
    """A copy of a tokenizer that knows one token more."""

    tokenizer: PreTrainedTokenizerBase
    text: str  # of the token that keeps a place
    place: int  # its id
    space: str  # what to write after a place, so that one space stands there
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
    # Some tokenizers (Llama's) put a space before every text, also after a special token.
    after = tokenizer.encode(f"{text}a", add_special_tokens=False)
    spaced = tuple(after[after.index(added[text]) + 1 :]) == token_ids(tokenizer, " a")
    space, swallowed = ("", " ?") if spaced else (" ", "")
    reserved = re.compile(f"({'|'.join(map(re.escape, longest_first))}){swallowed}")
    ids = frozenset(added.values())
    return _Private(tokenizer, text, added[text], space, reserved, ids, Lock())


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

    def conversation(self, prompt: Prompt) -> Chat:
        messages: Chat = []
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
                space = self.private.space if said.endswith(self.private.text) else " "
                joined = not (said and text) or said[-1:].isspace() or text[:1].isspace()
                content[-1]["text"] = said + text if joined else said + space + text
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
            self.fillings.append(_spelled(found[1], self.private))
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
    run: list[int] = []
    for at, token in enumerate(ids):
        filling = next(waiting) if token == place else (token,)
        if isinstance(filling, Medium):
            pieces += [tuple(run), filling]
            run = []
            index.append(at)
        else:
            run += filling
            index += [at] * len(filling)
    return [piece for piece in [*pieces, tuple(run)] if piece != ()], index
