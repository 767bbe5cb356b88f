"""The reader of a base: its chat template and processor, from messages to tokens and inputs.

What a processor refuses, or reads in a way of its own, is met by rules that name no family: media
are read by the processor for the whole batch, prompts without media as they are read alone.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from pathweave.errors import RecipeError, RequestError

Reader = ProcessorMixin | PreTrainedTokenizerBase
Chat = list[dict[str, Any]]
Rows = list[dict[str, Tensor]]
# What a processor makes beside what the model reads: padding is ours, and no answer is learnt here.
NOT_READ = ("attention_mask", "labels")


def chat_template(processor: Reader) -> str:
    """Return the chat template of a processor, or else of its tokenizer.

    Raises:
        RecipeError: If there is none.
    """
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


def end_of_answer(reader: Reader, ends: Collection[int]) -> int | None:
    """Return the token with which a chat template closes what the assistant says.

    Args:
        reader: A processor or a tokenizer with a chat template.
        ends: Tokens at which the language model stops.

    Returns:
        None if the template does not say, or the language model does not stop there.
    """
    said = "Yes"
    content: Any = [[{"type": "text", "text": text}] for text in ("Is it?", said)]
    forms = [content, [part[0]["text"] for part in content]]
    for asked, answered in forms if isinstance(reader, ProcessorMixin) else forms[::-1]:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        try:
            text: Any = reader.apply_chat_template(
                turns, chat_template=chat_template(reader), tokenize=False
            )
        except (TemplateError, TypeError):
            continue
        tokenizer: Any = getattr(reader, "tokenizer", reader)
        after = tokenizer.encode(str(text).rpartition(said)[2].strip(), add_special_tokens=False)
        if after and after[0] in ends:
            return int(after[0])
    return None


def read_chats(chats: list[Chat], reader: Reader, template: str) -> tuple[Rows, dict[str, Tensor]]:
    """Return what runs along the tokens of each chat, and what is made of the base's media.

    Args:
        chats: Messages; the content of each is a list of parts, in which texts do not follow each
            other.
        reader: A processor, or the tokenizer of a base that reads text alone.
        template: The chat template.

    Raises:
        RecipeError: If the template leaves words out.
        RequestError: If the template refuses the turns of a chat, or the processor its media.
    """
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
        parts = [content] if isinstance(content, str) else content
        words = [p if isinstance(p, str) else p.get("text", "") for p in parts]
        if any(repr(part) in text for part in parts if isinstance(part, dict)):
            return False
        # Templates may shorten what the assistant has said, such as its thoughts.
        if message["role"] != "assistant" and not all(word.strip() in text for word in words):
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
