"""Ask a model about media: messages in, answers out. Prompts of one call may mix paths freely."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pathweave.config import unknown
from pathweave.data.examples import Reader
from pathweave.data.messages import Part
from pathweave.errors import MediaError, PathError
from pathweave.evaluate.generate import generate
from pathweave.load import load_run, make_readers
from pathweave.model import PathWeave
from pathweave.prompt import Medium, Prompt


class Assistant:
    """A model with readers for its paths.

    Args:
        model: The model.
        readers: Readers by path.
        root: Directory that relative media paths start from.
    """

    def __init__(
        self, model: PathWeave, readers: Mapping[str, Reader], root: Path | None = None
    ) -> None:
        self.model = model.eval()
        self.readers = readers
        self.root = root or Path()

    def ask(
        self,
        contents: Sequence[Sequence[Mapping[str, str]]],
        max_tokens: int = 32,
        beams: int = 1,
    ) -> list[str]:
        """Return the answer to each content-part list.

        Args:
            contents: One list of parts a question, such as ``[{"type": "audio", "path": "a.wav"},
                {"type": "text", "text": "What is heard?"}]``.
            max_tokens: Longest answer, in tokens.
            beams: Beams of the search; 1 is greedy.

        Raises:
            PathError: If a part names a modality that has not been learnt.
            MediaError: If a medium is missing or cannot be decoded.
        """
        prompts = [self._prompt([Part(**part) for part in content]) for content in contents]
        return generate(self.model, prompts, max_tokens, beams)

    def _prompt(self, parts: Sequence[Part]) -> Prompt:
        return [part.text or "" if part.is_text else self._medium(part) for part in parts]

    def _medium(self, part: Part) -> Medium:
        if part.type not in self.model.paths:
            raise PathError(unknown("a medium", part.type, self.model.paths.names))
        file = self.root / (part.path or "")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise MediaError(
                f"{file} must be a file, got {error.strerror}; correct the path"
            ) from error
        return Medium(part.type, self.readers[part.type].read([(data, file.name)])[0])


def load(run: str | Path, paths: Sequence[str] | None = None) -> Assistant:
    """Return an assistant over a directory that ``pathweave evolve`` wrote.

    Args:
        run: The directory.
        paths: Load these paths and those they build on; None loads all.

    Raises:
        RunError: If the directory is no run.
        PathError: If a path is damaged.
    """
    model, recipe = load_run(Path(run), None if paths is None else list(paths))
    return Assistant(model, make_readers(recipe))
