"""What is said to the model: text and media in order, and the words put around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from pathweave.tensors import LATER


@dataclass(frozen=True)
class Medium:
    """One medium of a prompt, already encoded.

    Attributes:
        path: Name of the path that reads it.
        features: Output of the path's encoder; units are frames or windows.
    """

    path: str
    features: Float[Tensor, "units tokens width"]


Prompt = Sequence[str | Medium]


@dataclass(frozen=True)
class Template:
    """Words that a base puts around the user's prompt.

    Attributes:
        bos: Whether every sequence starts with the beginning-of-sequence token.
        separate: Whether every run of text is a sequence of its own, as in InstructBLIP: cue, then
            the medium's tokens, then the text, each text starting with the token of ``bos`` and
            put as it is. Otherwise all is one text, whose parts are joined by spaces.
        before: Text before everything, such as the opening of a chat turn.
        after: Text between the prompt and the answer.
        end: Text that closes the answer, before the end-of-sequence token.
    """

    bos: bool = False
    before: str = ""
    after: str = ""
    end: str = ""
    separate: bool = field(default=False, metadata=LATER)


def instruction(prompt: Prompt) -> str:
    """Return the text of a prompt, which the Q-Former reads beside every medium of it."""
    return " ".join(part.strip() for part in prompt if isinstance(part, str))
