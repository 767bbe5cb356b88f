"""Ask a model about media: messages in, answers out. Prompts of one call may mix paths freely."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pathweave.data.cache import FeatureCache
from pathweave.data.examples import as_prompt
from pathweave.data.messages import Part, parse_question
from pathweave.data.readers import AnyReader, NativeReader
from pathweave.decoders import Decoder
from pathweave.decoders.pair import pack_pair
from pathweave.errors import MediaError, PathError, RequestError
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Native, Prompt, blanked
from pathweave.runs.loading import load_base, load_run, make_readers, placed_model
from pathweave.runs.run_directory import RunDirectory
from pathweave.validation import unknown


class Assistant:
    """A model with readers for its paths.

    Args:
        model: The model.
        readers: Readers by path.
        root: Directory that relative media paths start from.
    """

    def __init__(
        self, model: PathWeave, readers: Mapping[str, AnyReader], root: Path | None = None
    ) -> None:
        self.model = model.eval()
        self.readers = readers
        self.root = root or Path()

    def ask(
        self,
        contents: Sequence[str | Sequence[Mapping[str, Any]]],
        max_tokens: int = 32,
        beams: int = 1,
        path: str | None = None,
        blind: bool = False,
    ) -> list[str]:
        """Return the answer to each content-part list.

        Args:
            contents: One list of parts a question, such as ``[{"type": "audio", "path": "a.wav"},
                {"type": "text", "text": "What is heard?"}]``, or of turns, such as ``[{"role":
                "system", "content": "Be brief."}, {"role": "user", "content": [...]}]``. A medium
                of two files has the second as ``companion``. A string stands for one part of text.
                A medium in memory stands as ``data`` in place of ``path``: bytes of a file, a
                picture of Pillow, an array or a tensor, a sound with its ``rate`` in Hz.
            max_tokens: Longest answer, in tokens.
            beams: Beams of the search; 1 is greedy.
            path: Read every medium with this path, such as one that reads several modalities;
                None reads each with that of its own.
            blind: Answer with the features of media set to zero: an answer that stays the same
                owes nothing to the medium.

        Raises:
            RequestError: If a question has no parts, or a malformed one.
            PathError: If a part names a modality that has not been learnt or the path does not
                read.
            MediaError: If a medium is missing or cannot be decoded.
        """
        prompts = [
            self.prompt(content, f"question {number}", path, blind)
            for number, content in enumerate(contents, start=1)
        ]
        return generate(self.model, prompts, max_tokens, beams)

    def prompt(
        self,
        content: str | Sequence[Mapping[str, Any]],
        place: str = "question",
        path: str | None = None,
        blind: bool = False,
    ) -> Prompt:
        """Return a question with its media encoded; threads may call it at once.

        Args:
            content: See ``ask``.
            place: Which question it is, for error messages.
            path: See ``ask``.
            blind: See ``ask``.

        Raises:
            RequestError: See ``ask``.
            PathError: See ``ask``.
            MediaError: See ``ask``.
        """
        memory: dict[str, Mapping[str, Any]] = {}
        turns = parse_question(_without_data(content, place, memory), place)

        def read(part: Part) -> str | Medium | Native:
            return part.text or "" if part.is_text else self._medium(part, path, memory)

        prompt = as_prompt(turns, read)
        return blanked(prompt) if blind else prompt

    def _medium(
        self,
        part: Part,
        path: str | None,
        memory: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> Medium | Native:
        name = path or part.type
        if name not in self.model.paths and (path or not self._is_native(name)):
            native = [] if path else filter(self._is_native, self.model.base.native)
            what = "path" if path else "a medium"
            raise PathError(unknown(what, name, [*self.model.paths.names, *native]))
        if part.path is not None and part.path in memory:
            given, decoder = memory[part.path], self.readers[name].of(part.type).decoder
            try:
                data = decoder.pack(given["data"], given.get("rate"))
            except MediaError as error:
                raise MediaError(f"{part.path} {error}") from error
            return self.readers[name].medium(name, part.type, (data, part.path))
        files = [self.root / file for file in (part.path, part.companion) if file is not None]
        try:
            data, *companion = [file.read_bytes() for file in files]
        except OSError as error:
            raise MediaError(
                f"{error.filename} must be a file, got {error.strerror}; correct the path"
            ) from error
        if companion:
            data = pack_pair(companion[0], data)
        return self.readers[name].medium(name, part.type, (data, files[0].name))

    def _is_native(self, kind: str) -> bool:
        """Return whether the base reads media by itself: not those that a recipe declares."""
        known = kind in self.model.base.native and kind in self.readers
        return known and isinstance(self.readers[kind], NativeReader)


def _without_data(
    content: str | Sequence[Mapping[str, Any]], question: str, memory: dict[str, Mapping[str, Any]]
) -> str | list[Mapping[str, Any]]:
    """Return a question with names in place of the media that it holds, which go to ``memory``."""
    if isinstance(content, str):
        return content
    named: list[Mapping[str, Any]] = []
    for number, part in enumerate(content, start=1):
        if "role" in part and not isinstance(part.get("content", ""), str):
            turn = _without_data(part["content"], f"{question}, turn {number}", memory)
            part = {**part, "content": turn}
        elif part.keys() & {"data", "rate"} and not part.keys() & {"path", "text", "companion"}:
            if part.get("data") is None:
                raise RequestError(f"{question}: a part with a rate must have data, got none")
            place = f"{question}, part {number}"
            memory[place] = part
            part = {key: value for key, value in part.items() if key not in ("data", "rate")}
            part = {**part, "path": place}
        named.append(part)
    return named


def load(
    run: str | Path,
    paths: Sequence[str] | None = None,
    guard: Callable[[Decoder], Decoder] = lambda decoder: decoder,
    layers: bool = True,
    cache: FeatureCache | None = None,
) -> Assistant:
    """Return an assistant over a directory that ``pathweave evolve`` wrote.

    It computes on the graphics processor if there is one; ``.model.to("cpu")`` brings it back.

    Args:
        run: The directory.
        paths: Load these paths and those they build on; None loads all.
        guard: Wraps each decoder, such as in one that works in another process.
        layers: Whether the language model is to answer; an assistant without its layers makes
            prompts alone.
        cache: Where features are kept; None is the shared cache.

    Raises:
        RunError: If the directory is no run, or the model does not fit the graphics processor.
        PathError: If a path is damaged.
    """
    model, recipe = load_run(Path(run), None if paths is None else list(paths), layers)
    readers = make_readers(recipe, model.base, RunDirectory(Path(run)), guard, cache)
    return Assistant(placed_model(model) if layers else model, readers)


def load_alone(
    base: str,
    guard: Callable[[Decoder], Decoder] = lambda decoder: decoder,
    cache: FeatureCache | None = None,
) -> Assistant:
    """Return an assistant over a base and the paths it comes with, without any run.

    Args:
        base: See ``pathweave.runs.loading.load_base``.
        guard: See ``load``.
        cache: See ``load``.

    Raises:
        RecipeError: If there is no such base.
        FetchError: If weights cannot be fetched, or are incomplete.
    """
    loaded = load_base(base)
    readers = make_readers(None, loaded, guard=guard, cache=cache)
    return Assistant(placed_model(PathWeave(loaded)), readers)


def run_of(model: str) -> Path | None:
    """Return the directory of a run; None if a name is that of a base by itself."""
    return Path(model) if RunDirectory(Path(model)).recipe_file.is_file() else None
