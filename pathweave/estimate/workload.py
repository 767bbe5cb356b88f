"""How long the sequences are whose cost is estimated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One sample of a path: one medium, a question, an answer.

    All of it counts, also the words before the medium, which are read once for equal prompts.

    Attributes:
        units: Frames or windows of the medium; the Q-Former reads each by itself.
        tokens: Tokens that the encoder makes of a unit.
        queries: Query tokens of the path.
        text: Tokens of cue and question; the Q-Former is taken to read as many as the language
            model, which holds within a few tokens.
        answer: Tokens of the answer, the end of the sequence among them.
        reads_text: Whether the Q-Former reads the question.
    """

    units: int
    tokens: int
    queries: int
    text: int
    answer: int
    reads_text: bool = True

    @property
    def qformer_text(self) -> int:
        """Text tokens beside the queries of each unit."""
        return self.text if self.reads_text else 0

    @property
    def rows(self) -> int:
        """Rows of a unit in the Q-Former's self-attention."""
        return self.queries + self.qformer_text

    @property
    def prompt(self) -> int:
        """Length of the prompt in the language model, in tokens."""
        return self.units * self.queries + self.text

    @property
    def sequence(self) -> int:
        """Length of prompt and answer in the language model, in tokens."""
        return self.prompt + self.answer
