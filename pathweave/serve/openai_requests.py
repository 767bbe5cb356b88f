"""Requests of OpenAI's clients, checked, and the objects that those clients are answered with."""

import time
from collections.abc import Mapping
from typing import Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pathweave.errors import RequestError
from pathweave.serve.engine import Asked, Piece
from pathweave.serve.openai_messages import read_json
from pathweave.validation import explain

# Fields that leave the answer as it is.
HARMLESS = {
    *("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"),
    *("prompt_cache_retention", "parallel_tool_calls", "include", "truncation", "background"),
}
# Fields that would change it, the values at which they do not, and why they are refused otherwise.
REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "tools": (([],), "no tools are called"),
    "tool_choice": (("none", "auto"), "no tools are called"),
    "functions": (([],), "no functions are called"),
    "function_call": (("none", "auto"), "no functions are called"),
    "response_format": (({"type": "text"},), "answers are plain text"),
    "text": (({"format": {"type": "text"}}, {}), "answers are plain text"),
    "modalities": ((["text"],), "answers are plain text"),
    "audio": ((), "answers are plain text"),
    "logprobs": ((False,), "ask /v1/systemone for probabilities"),
    "top_logprobs": ((0,), "ask /v1/systemone for probabilities"),
    "frequency_penalty": ((0,), "no token is made less likely"),
    "presence_penalty": ((0,), "no token is made less likely"),
    "logit_bias": (({},), "no token is made more likely"),
    "n": ((1,), "there is one answer a request"),
    "reasoning_effort": (("none",), "the model answers at once"),
    "reasoning": (({},), "the model answers at once"),
    "verbosity": ((), "say in the question how long the answer is to be"),
    "prediction": ((), "nothing is predicted"),
    "web_search_options": ((), "nothing is searched"),
    "previous_response_id": ((), "no answer is kept: send the whole conversation"),
    "conversation": ((), "no answer is kept: send the whole conversation"),
    "prompt": ((), "no prompts are kept"),
}


class OwnOptions(BaseModel, frozen=True, extra="forbid"):
    """What OpenAI's API has no field for.

    Args:
        blind: Answer with the features of media set to zero.
    """

    blind: bool = False


class Sampled(BaseModel):
    """What all requests for an answer have.

    Args:
        model: Id of the base, or of a path that is to read all media; None is the base.
        temperature: By which logits are divided before a token is drawn; 0 takes the likeliest.
        top_p: Only the likeliest tokens, of this probability together, are drawn from.
        seed: Of the draws.
        stop: Words that close the answer.
        stream: Whether the answer comes in pieces.
        pathweave: What OpenAI's API has no field for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] = []
    stream: bool = False
    pathweave: OwnOptions = OwnOptions()

    @property
    def longest(self) -> int | None:
        """Return the most tokens of the answer, if given."""
        raise NotImplementedError

    def asked(self, most: int) -> Asked:
        """Return what an engine is asked, without the prompt.

        Args:
            most: Most tokens that an answer may have, and has if the request does not say.

        Raises:
            RequestError: If the answer may be longer than that, or a stop word is empty.
        """
        longest = most if self.longest is None else self.longest
        if longest > most:
            raise RequestError(
                f"an answer must have at most {most:,} tokens, got {longest:,}; ask for fewer, or "
                "start the server with a larger --max-tokens"
            )
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stop) > 4 or not all(stop):
            raise RequestError(f"stop must be at most 4 words, none empty, got {stop!r:.60}")
        return Asked((), longest, self.temperature, self.top_p, self.seed, stop)


class StreamOptions(BaseModel, frozen=True, extra="forbid"):
    """How an answer in pieces comes.

    Args:
        include_usage: Whether the last piece counts tokens.
        include_obfuscation: Accepted; nothing is added to pieces.
    """

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Sampled):
    """A request to ``/v1/chat/completions``.

    Args:
        messages: The conversation.
        max_tokens: Longest answer.
        max_completion_tokens: The same, by its newer name.
        stream_options: How an answer in pieces comes.
    """

    messages: list[Any]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream_options: StreamOptions = StreamOptions()

    @property
    def longest(self) -> int | None:
        """Return the most tokens of the answer, if given."""
        return self.max_completion_tokens or self.max_tokens


class ResponsesRequest(Sampled):
    """A request to ``/v1/responses``.

    Args:
        input: A question, or the conversation.
        instructions: What a system message says.
        max_output_tokens: Longest answer.
    """

    input: str | list[Any]
    instructions: str = ""
    max_output_tokens: int | None = Field(None, ge=1)

    @property
    def longest(self) -> int | None:
        """Return the most tokens of the answer, if given."""
        return self.max_output_tokens

    @property
    def messages(self) -> list[Any]:
        """Return the conversation as messages."""
        said = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else []
        told = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return [*told, *(said or self.input)]


Request = TypeVar("Request", bound=BaseModel)


def read_request(schema: type[Request], body: bytes) -> Request:
    """Return the request that a body holds.

    Raises:
        RequestError: If it is malformed, or wants what this server does not do.
    """
    tree = {field: value for field, value in read_json(body).items() if field not in HARMLESS}
    for field, (neutral, why) in REFUSED.items():
        if field not in tree or field in schema.model_fields:
            continue
        if (value := tree.pop(field)) not in neutral:
            raise RequestError(f"{field} must be left out, got {value!r:.60}: {why}")
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise RequestError(f"{explain(error, schema)}; correct the field") from error


def new_id(kind: str) -> str:
    """Return an id that no other object has."""
    return f"{kind}-{uuid4().hex}"


def usage_of(piece: Piece, media: Mapping[str, int]) -> dict[str, Any]:
    """Return the tokens of a prompt and of an answer, those of the prompt by modality too."""
    by_modality = {f"{name}_tokens": count for name, count in media.items()}
    return {
        "prompt_tokens": piece.prompt_tokens,
        "completion_tokens": piece.tokens,
        "total_tokens": piece.prompt_tokens + piece.tokens,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "text_tokens": piece.prompt_tokens - sum(media.values()),
            **by_modality,
        },
    }


def completion(model: str, piece: Piece, media: Mapping[str, int]) -> dict[str, Any]:
    """Return a whole answer as the object of ``/v1/chat/completions``."""
    message = {"role": "assistant", "content": piece.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": piece.finish}
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage_of(piece, media),
    }


def response(model: str, piece: Piece | None, media: Mapping[str, int], id: str) -> dict[str, Any]:
    """Return an answer as the object of ``/v1/responses``; None is one that has yet to come."""
    is_cut = piece is not None and piece.finish == "length"
    status: Literal["in_progress", "incomplete", "completed"] = (
        "in_progress" if piece is None else "incomplete" if is_cut else "completed"
    )
    made: dict[str, Any] = {
        "id": id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": model,
        "output": [],
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
        "instructions": None,
        "metadata": {},
    }
    if piece is not None:
        used = usage_of(piece, media)
        made["output"] = [output_item(id, piece.text, status)]
        made["usage"] = {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": used["prompt_tokens_details"],
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        }
    return made


def output_item(id: str, text: str | None, status: str) -> dict[str, Any]:
    """Return the message of a response; None is one without a text so far."""
    content = [] if text is None else [output_text(text)]
    return {"id": f"msg-{id}", "type": "message", "role": "assistant", "status": status} | {
        "content": content
    }


def output_text(text: str) -> dict[str, Any]:
    """Return a text as a part of a response."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
