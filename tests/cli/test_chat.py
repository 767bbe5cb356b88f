import asyncio
import io

import pytest

from pathweave.data.manifest import Manifest
from pathweave.runs.assistant import load
from tests.whole_runs import command


def test_a_conversation_through_a_pipe(finished_run, recipe_file, home, capsys, monkeypatch):
    data = recipe_file.parent
    [part] = [p for p in Manifest(data / "sight-test.jsonl")[0].prompt if not p.is_text]
    lines = [f"/sight {data / part.path}", "What is it?", "", "/smell x", "//slash", "/quit", "no"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    capsys.readouterr()
    assert command("chat", finished_run, "--max-tokens", 4) == 0
    told = capsys.readouterr()
    content = [{"type": "sight", "path": str(data / part.path)}]
    asked = [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]
    assistant = load(finished_run)
    [first] = assistant.ask([asked], 4)
    more = {"role": "user", "content": [{"type": "text", "text": "/slash"}]}
    [second] = assistant.ask([[*asked, {"role": "assistant", "content": first}, more]], 4)
    assert told.out == f"sight: {part.path.split('/')[-1]}\n{first}\n{second}\n"
    assert told.err.count("error:") == 1
    assert "'smell'" in told.err


def test_commands_and_files_are_completed(tmp_path, monkeypatch):
    completion = pytest.importorskip("prompt_toolkit.completion")
    from prompt_toolkit.document import Document

    from pathweave.cli.completion import Commands

    (tmp_path / "photo.png").touch()
    monkeypatch.chdir(tmp_path)
    completer, event = Commands(["sight", "sound"]), completion.CompleteEvent()

    def found(text):
        return [c.text for c in completer.get_completions(Document(text, len(text)), event)]

    assert found("/s") == ["sight", "sound", "save"]
    assert found("/sight ph") == ["oto.png"]
    assert found("/blind ph") == []
    assert found("what is /s") == []


def test_a_terminal_is_read_line_by_line():
    pytest.importorskip("prompt_toolkit")
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.application.current import get_app_or_none
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from pathweave.cli.completion import line_reader

    async def read_all():
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            read = line_reader(["sight"])
            line = asyncio.ensure_future(read())
            pipe.send_text("/si\t")
            while (session := get_app_or_none()) is None or session.current_buffer.text != "/sight":
                await asyncio.sleep(0.01)
            pipe.send_text(" photo.png\n")
            first = await line
            pipe.send_text("\x03")
            with pytest.raises(KeyboardInterrupt):
                await read()
            pipe.send_text("\x04")
            with pytest.raises(EOFError):
                await read()
            return first

    assert asyncio.run(asyncio.wait_for(read_all(), 60)) == "/sight photo.png"
