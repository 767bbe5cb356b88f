"""Prompts: text and media in order, the words put around them, and their layout as tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, zeros_like
from transformers import PreTrainedTokenizerBase

from pathweave.errors import RequestError
from pathweave.storage.tensors import HASHED_ONLY_IF_SET


@dataclass(frozen=True)
class Medium:
    """One medium of a prompt, already encoded.

    Attributes:
        path: Name of the path that reads it.
        features: Output of the path's encoder; units are frames or windows.
        modality: What it is, which its cue says, where the path reads several; None is the path's.
    """

    path: str
    features: Float[Tensor, "units tokens width"]
    modality: str | None = None


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


Prompt = Sequence[str | Medium | Native | Turn]
Ids = tuple[int, ...]


def blanked(prompt: Prompt) -> Prompt:
    """Return a prompt whose media have features of zeros; those of the base are left out."""
    return [
        replace(piece, features=zeros_like(piece.features)) if isinstance(piece, Medium) else piece
        for piece in prompt
        if not isinstance(piece, Native)
    ]


@dataclass(frozen=True)
class Template:
    """Words that a base puts around the user's prompt.

    Attributes:
        bos: Whether every sequence starts with the beginning-of-sequence token.
        separate: Whether every run of text is a sequence of its own, as in InstructBLIP: cue, then
            the medium's tokens, then the text, each text starting with the token of ``bos`` and
            put as it is. Otherwise all is one text, whose parts are joined by spaces.
        text_first: Whether a text that closes a prompt of media comes before them. The language
            model then knows what is asked when it reads the media, and reads equal questions once
            (``pathweave.model.prefix_cache``).
        before: Text before everything, such as the opening of a chat turn.
        after: Text between the prompt and the answer.
        end: Text that closes the answer, before the end-of-sequence token.
        chat: Hash of the chat template that conversations are put in; the other fields do not
            matter then. None puts the words of the other fields around.
    """

    bos: bool = False
    before: str = ""
    after: str = ""
    end: str = ""
    separate: bool = field(default=False, metadata=HASHED_ONLY_IF_SET)
    text_first: bool = field(default=False, metadata=HASHED_ONLY_IF_SET)
    chat: str | None = field(default=None, metadata=HASHED_ONLY_IF_SET)

    def order(self, prompt: Prompt) -> Prompt:
        """Return the parts of a prompt in the order in which the language model reads them.

        A prompt whose text stands between media keeps its order.
        """
        texts = [part for part in prompt if isinstance(part, str)]
        media = [part for part in prompt if isinstance(part, Medium)]
        if self.text_first and list(prompt) == [*media, *texts]:
            return [*texts, *media]
        return prompt


def instruction(prompt: Prompt) -> str:
    """Return the text of a prompt, which the Q-Former reads beside every medium of it."""
    return " ".join(part.strip() for part in prompt if isinstance(part, str))


def lay_out(
    prompt: Prompt,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    cues: Mapping[str, str],
) -> list[Ids | Medium]:
    """Return token ids and media in the order in which the language model reads them.

    Args:
        prompt: Text and media. Turns follow each other as if they were one.
        tokenizer: The language model's tokenizer.
        template: Words around the prompt.
        cues: Words put before a medium, by modality or else path.

    Raises:
        RequestError: If it holds a medium that the base would have to read by itself.
    """
    start: Ids = (tokenizer.bos_token_id,) if template.bos else ()

    def sequence(text: str) -> Ids:
        return (*start, *tokenizer.encode(text, add_special_tokens=False))

    separate = template.separate
    pieces: list[Ids | Medium] = []
    text = template.before
    for part in template.order([piece for piece in prompt if not isinstance(piece, Turn)]):
        assert not isinstance(part, Turn)
        # The template brings its own space; only what the prompt has said so far asks for one.
        spoken = text if pieces or separate else text.removeprefix(template.before)
        if isinstance(part, str):
            goes_on = spoken or (pieces and not separate)
            text += f" {part.strip()}" if goes_on else part.strip()
            continue
        if isinstance(part, Native):
            raise RequestError(
                f"a medium must be read by a path, got one of kind {part.kind!r} for a base that "
                "reads none by itself; learn a path for it, or name a vision LLM as base"
            )
        cue = cues.get(part.modality or part.path, "")
        if separate:
            pieces += [sequence(words) for words in (text, cue) if words]
        else:
            pieces.append(token_ids(tokenizer, f"{text} {cue}" if spoken and cue else text + cue))
        pieces.append(part)
        text = ""
    text += template.after
    if separate:  # also if the last text is empty
        return [*pieces, sequence(text)]
    return [*([start] if start else []), *pieces, token_ids(tokenizer, text)]


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, spelled: bool = False) -> Ids:
    """Return the tokens of a text; one that starts with a space goes on from another.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        spelled: Whether names of special tokens are letters like others.
    """
    # Some tokenizers (Llama's) put a space before every text: there it would be a second one.
    before = "x" if text.startswith(" ") else ""
    count = len(tokenizer.encode(before, add_special_tokens=False))
    options = {"add_special_tokens": False, "split_special_tokens": spelled}
    return tuple(tokenizer.encode(before + text, **options)[count:])
