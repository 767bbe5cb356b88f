"""What is said to the model: text and media in order, and the words put around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

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


Prompt = Sequence[str | Medium]


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
    """

    bos: bool = False
    before: str = ""
    after: str = ""
    end: str = ""
    separate: bool = field(default=False, metadata=HASHED_ONLY_IF_SET)
    text_first: bool = field(default=False, metadata=HASHED_ONLY_IF_SET)

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
