"""Lines of a conversation from a terminal, with history and completion."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

WITH_FILE = ("save",)
COMMANDS = ("path", "blind", "save", "new", "help", "quit")


class Commands(Completer):
    """Completes commands, and names of files after those that take one.

    Args:
        kinds: Kinds of media that can be shown.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """Yield what a line may go on with."""
        text = document.text_before_cursor
        command, space, file = text.removeprefix("/").partition(" ")
        if not text.startswith("/"):
            return
        if not space:
            for name in (*self._kinds, *COMMANDS):
                if name.startswith(command):
                    yield Completion(name, start_position=-len(command))
        elif command in (*self._kinds, *WITH_FILE):
            yield from self._files.get_completions(Document(file, len(file)), event)


def line_reader(kinds: Sequence[str]) -> Callable[[], Awaitable[str]]:
    """Return what asks for the next line; it raises ``EOFError`` when the user ends."""
    session: PromptSession[str] = PromptSession(
        completer=Commands(kinds), complete_while_typing=False
    )

    async def read() -> str:
        return await session.prompt_async("> ")

    return read
