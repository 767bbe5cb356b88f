"""Typed questions: a probability for every allowed answer, in the shapes of ``/v1/systemone``."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from pathweave.decoders import Decoder
from pathweave.serve.openai_messages import part_of

MAX_QUESTIONS, MAX_ANSWERS = 64, 256
Criteria = dict[str, Any] | list[Any]


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    instructions: str | dict[str, Any] | list[Any] = ""

    @property
    def allowed(self) -> dict[str, str]:
        """Return the allowed answers as they are said, by their names in the result."""
        raise NotImplementedError

    def answer(self, shares: list[float]) -> dict[str, Any]:
        """Return the answer, given the probability of each that is allowed."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """Return what is asked, with what is said about single answers."""
        return _as_text(self.instructions)


class ChoiceQuestion(_Question):
    """Which of several answers it is.

    Args:
        type: ``choice``.
        criteria: What is said about each answer, or null, by answer.
    """

    type: Literal["choice"]
    criteria: dict[str, Any] = Field(min_length=1, max_length=MAX_ANSWERS)

    @property
    def allowed(self) -> dict[str, str]:
        """Return the allowed answers as they are said, by their names in the result."""
        return {option: option for option in self.criteria}

    @property
    def text(self) -> str:
        """Return what is asked, with what is said about single answers."""
        said = [f"{option}: {_as_text(of)}" for option, of in self.criteria.items() if of]
        return "\n".join(filter(None, [super().text, *said]))

    def answer(self, shares: list[float]) -> dict[str, Any]:
        """Return the answer, given the probability of each that is allowed."""
        by_option = dict(zip(self.criteria, shares, strict=True))
        best = max(by_option, key=lambda option: by_option[option])
        even = 1 / len(shares)
        sure = 1.0 if even == 1 else max(0.0, (by_option[best] - even) / (1 - even))
        return {
            "type": self.type,
            "choice": best,
            "confidence": sure,
            "probabilities": by_option,
        }


class NoulQuestion(_Question):
    """Whether something is so.

    Args:
        type: ``noul``.
        criteria: What is said about ``true`` and ``false``, or null.
    """

    type: Literal["noul"]
    criteria: dict[Literal["true", "false"], Any] = {}

    @property
    def allowed(self) -> dict[str, str]:
        """Return the allowed answers as they are said, by their names in the result."""
        return {"true": "yes", "false": "no"}

    @property
    def text(self) -> str:
        """Return what is asked, with what is said about single answers."""
        said = [f"{self.allowed[key]}: {_as_text(of)}" for key, of in self.criteria.items() if of]
        return "\n".join(filter(None, [super().text, *said]))

    def answer(self, shares: list[float]) -> dict[str, Any]:
        """Return the answer, given the probability of each that is allowed."""
        return {"type": self.type, "noul": shares[0]}


class ScoreQuestion(_Question):
    """Where on a scale it lies.

    Args:
        type: ``score``.
        criteria: The levels, from the lowest.
    """

    type: Literal["score"]
    criteria: list[Any] = Field(min_length=1, max_length=MAX_ANSWERS)

    @property
    def allowed(self) -> dict[str, str]:
        """Return the allowed answers as they are said, by their names in the result."""
        return {str(level): _as_text(of) for level, of in enumerate(self.criteria)}

    def answer(self, shares: list[float]) -> dict[str, Any]:
        """Return the answer, given the probability of each that is allowed."""
        count = len(shares)
        best = max(range(count), key=lambda level: shares[level])
        distance = sum(share * abs(level - best) for level, share in enumerate(shares))
        even = sum(abs(level - (count - 1) / 2) for level in range(count)) / count
        return {
            "type": self.type,
            "score": sum(level * share for level, share in enumerate(shares)),
            "legend": dict(zip(self.allowed, self.criteria, strict=True)),
            "confidence": 1.0 if count == 1 else max(0.0, 1 - distance / even),
            "probabilities": dict(zip(self.allowed, shares, strict=True)),
        }


TypedQuestion = Annotated[
    ChoiceQuestion | NoulQuestion | ScoreQuestion, Field(discriminator="type")
]


class TypedRequest(BaseModel):
    """A request to ``/v1/systemone``.

    Args:
        model: Id of the base, or of a path that is to read all media; None is the base.
        state: What is asked about: a text, content parts of OpenAI's API, or any JSON.
        questions: The questions, by name.
        assets: Media, by the word that stands for each in texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    state: str | dict[str, Any] | list[Any]
    questions: dict[str, TypedQuestion] = Field(min_length=1, max_length=MAX_QUESTIONS)
    assets: dict[Annotated[str, Field(min_length=1)], dict[str, Any]] = Field({}, max_length=16)

    def content(self, name: str, reads: Mapping[str, Decoder]) -> list[dict[str, Any]]:
        """Return the parts of a question with what it is about, as ``Assistant.prompt`` takes them.

        Args:
            name: Name of the question.
            reads: Decoders of the modalities that are read.

        Raises:
            RequestError: If a part is malformed, or of no modality that is read.
            MediaError: If a medium is not encoded well.
        """
        state = self.state if _are_parts(self.state) else [_text(_as_text(self.state))]
        parts: list[dict[str, Any]] = []
        for number, part in enumerate([*state, _text(self.questions[name].text)], start=1):
            made = part_of(part, f"question {name!r:.40}, part {number}", reads)
            parts += self._with_assets(made["text"], reads) if "text" in made else [made]
        return parts

    def _with_assets(self, text: str, reads: Mapping[str, Decoder]) -> list[dict[str, Any]]:
        """Return a text as parts, with media in place of the words that stand for them."""
        names = sorted(self.assets, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        return [
            self._asset(piece, reads) if piece in self.assets else _text(piece)
            for piece in pieces
            if piece.strip()
        ]

    def _asset(self, name: str, reads: Mapping[str, Decoder]) -> dict[str, Any]:
        asset = self.assets[name]
        data, kind = asset.get("data_base64"), asset.get("modality", "image_url")
        uri = data if str(data).startswith("data:") else f"data:;base64,{data or ''}"
        kind = f"{str(kind).removesuffix('_url')}_url"
        return part_of({"type": kind, kind: {"url": uri}}, f"asset {name!r:.40}", reads)


def probabilities(log_likelihoods: list[float]) -> list[float]:
    """Return the probability of each answer, given that it is one of them.

    Example:
        >>> probabilities([-1.0, -1.0])
        [0.5, 0.5]
    """
    return [float(p) for p in torch.tensor(log_likelihoods, dtype=torch.float64).softmax(0)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _are_parts(state: object) -> bool:
    return isinstance(state, list) and all(isinstance(p, dict) and "type" in p for p in state)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
