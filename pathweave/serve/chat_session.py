"""A conversation in the terminal: what was said and shown, commands, and the answers."""

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pathweave.errors import MediaError, PathError, RequestError
from pathweave.runs.assistant import Assistant
from pathweave.serve.engine import Asked, Engine
from pathweave.storage.atomic import write_atomic
from pathweave.validation import unknown

HELP = {
    "/NAME FILE": "show a medium with the next question; NAME is one of {names}",
    "/path [NAME]": "read every medium with this path; without a name each with its own",
    "/blind": "answer without looking, or look again",
    "/save FILE": "write the conversation as a row of a manifest (JSON lines)",
    "/new": "forget the conversation",
    "/help": "list these",
    "/quit": "end, as Ctrl-D does; Ctrl-C ends an answer",
}


class ChatSession:
    """A conversation with a model.

    Args:
        assistant: The model and the readers of its media.
        engine: What answers.
        max_tokens: Longest answer, in tokens.

    Attributes:
        turns: What has been said, as content-part lists of chat templates.
        shown: Media that go with the next question.
        path: The path that reads every medium; None reads each with its own.
        is_blind: Whether media are blanked.
    """

    def __init__(self, assistant: Assistant, engine: Engine, max_tokens: int = 256) -> None:
        self.assistant = assistant
        self.engine = engine
        self.max_tokens = max_tokens
        self.turns: list[dict[str, Any]] = []
        self.shown: list[dict[str, str]] = []
        self.path: str | None = None
        self.is_blind = False

    @property
    def kinds(self) -> list[str]:
        """Kinds of media that can be shown."""
        return sorted(name for name in self.assistant.readers if name != "text")

    async def ask(self, text: str) -> AsyncGenerator[str, None]:
        """Yield the answer in pieces; what fails leaves the conversation as it was.

        A caller who closes the iterator ends the answer; what was said so far stays.

        Raises:
            PathWeaveError: If a medium cannot be read, or the question not be answered.
        """
        content = [*self.shown, *([{"type": "text", "text": text}] if text else [])]
        self.shown = []
        turns = [*self.turns, {"role": "user", "content": content}]
        prompt = await asyncio.to_thread(
            self.assistant.prompt, turns, "the question", self.path, self.is_blind
        )
        said = ""
        try:
            async with aclosing(self.engine.stream(Asked(prompt, self.max_tokens))) as pieces:
                async for piece in pieces:
                    said += piece.text
                    yield piece.text
        finally:
            if said:
                self.turns = [*turns, {"role": "assistant", "content": said}]

    def command(self, line: str) -> str:
        """Do what a line that begins with a slash says, and return what to tell.

        Raises:
            RequestError: If there is no such command, or a word too many or too few.
            PathError: If there is no such path.
            MediaError: If there is no such file.
        """
        try:
            name, *words = shlex.split(line.removeprefix("/"))
        except ValueError as error:
            raise RequestError(
                f"a command must be words, with quotes closed, got {line!r} ({error}); see /help"
            ) from error
        name = name.replace("-", "_")
        known: dict[str, Callable[..., str]] = {
            "path": self._read_with,
            "blind": self._blind,
            "save": self._save,
            "new": self._begin,
            "help": self._help,
        }
        if name in known:
            return known[name](*self._expected(name, words))
        if name not in self.kinds:
            raise RequestError(unknown("a command or medium", name, [*known, "quit", *self.kinds]))
        [file] = self._expected(name, words)
        if not Path(file).expanduser().is_file():
            raise MediaError(f"{file} must be a file, got none there; correct the name")
        self.shown.append({"type": name, "path": str(Path(file).expanduser().absolute())})
        return f"{name}: {Path(file).name}"

    def _expected(self, name: str, words: list[str]) -> list[str]:
        least, most = {"path": (0, 1), "blind": (0, 0), "new": (0, 0), "help": (0, 0)}.get(
            name, (1, 1)
        )
        if not least <= len(words) <= most:
            count = "one word" if least else "no word" if not most else "at most one word"
            raise RequestError(
                f"/{name} must be followed by {count}, got {len(words)}; put a name with spaces "
                "in quotes"
            )
        return words

    def _read_with(self, name: str | None = None) -> str:
        names = self.assistant.model.paths.names
        if name is not None and name not in names:
            raise PathError(unknown("a path", name, names))
        self.path = name
        return "each medium with its own path" if name is None else f"every medium with {name}"

    def _blind(self) -> str:
        self.is_blind = not self.is_blind
        return "media are blanked" if self.is_blind else "media are looked at"

    def _begin(self) -> str:
        self.turns, self.shown = [], []
        return "a new conversation"

    def _help(self) -> str:
        width = max(map(len, HELP))
        names = ", ".join(self.kinds)
        return "\n".join(f"{what:{width}}  {does}" for what, does in HELP.items()).format(
            names=names
        )

    def _save(self, file: str) -> str:
        if not self.turns:
            raise RequestError("there must be something to save, got an empty conversation")
        row = {"id": Path(file).stem, "messages": self.turns}
        write_atomic(Path(file).expanduser(), f"{json.dumps(row)}\n".encode())
        return f"saved: {file}"
