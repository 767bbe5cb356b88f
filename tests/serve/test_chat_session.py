import asyncio
import json

import pytest

from pathweave.data.manifest import Manifest
from pathweave.errors import MediaError, PathError, PathWeaveError, RequestError
from pathweave.runs.assistant import load
from pathweave.serve.chat_session import ChatSession
from pathweave.serve.in_process import InProcess


@pytest.fixture
def run(finished_run, recipe_file, home):
    """A finished run, and the directory of what it was learnt from."""
    return finished_run, recipe_file.parent


def medium_of(run, name):
    manifest = Manifest(run[1] / f"{name}-test.jsonl")
    [part] = [part for part in manifest[0].prompt if not part.is_text]
    return run[1] / part.path


def talk(run, work):
    async def main():
        assistant = load(run[0])
        engine = InProcess(assistant.model)
        session = ChatSession(assistant, engine, max_tokens=6)

        async def ask(text):
            return "".join([piece async for piece in session.ask(text)])

        try:
            return assistant, await work(session, ask)
        finally:
            await engine.close()

    return asyncio.run(main())


def test_a_conversation_is_what_the_assistant_would_be_asked(run):
    """Media go with the next question alone, and earlier turns with every one."""
    shown = medium_of(run, "sight")

    async def work(session, ask):
        assert session.command(f"/sight '{shown}'") == f"sight: {shown.name}"
        return [await ask("What is it?"), await ask("Are you sure?")], session.turns

    assistant, (answers, turns) = talk(run, work)
    user = [{"type": "sight", "path": str(shown)}, {"type": "text", "text": "What is it?"}]
    asked = [{"role": "user", "content": user}]
    more = {"role": "user", "content": [{"type": "text", "text": "Are you sure?"}]}
    expected = assistant.ask([asked], 6)
    expected += assistant.ask([[*asked, {"role": "assistant", "content": expected[0]}, more]], 6)
    assert answers == expected
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2


def test_a_saved_conversation_is_a_row_of_a_manifest(run, tmp_path):
    async def work(session, ask):
        session.command(f"/sight {medium_of(run, 'sight')}")
        answer = await ask("What is it?")
        assert session.command(f"/save {tmp_path / 'talk.jsonl'}").startswith("saved")
        return answer

    _, answer = talk(run, work)
    [sample] = Manifest(tmp_path / "talk.jsonl")
    assert sample.answer == answer
    assert sample.prompt[0].path == str(medium_of(run, "sight"))


def test_path_and_blind_change_how_media_are_read(run):
    shown = medium_of(run, "sight")
    content = [[{"type": "sight", "path": str(shown)}, {"type": "text", "text": "What?"}]]

    async def work(session, ask):
        answers = []
        for words in ("/blind", "/blind", "/path sight", "/path"):
            session.command(words)
            session.command("/new")
            session.command(f"/sight {shown}")
            answers.append(await ask("What?"))
        return answers

    assistant, answers = talk(run, work)
    seen = assistant.ask(content, 6)[0]
    assert answers == [assistant.ask(content, 6, blind=True)[0], seen, seen, seen]


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("/smell a.txt", RequestError, "'smell'"),
        ("/sight nowhere.npy", MediaError, "nowhere.npy must be a file"),
        ("/sight", RequestError, "one word, got 0"),
        ("/sight a b", RequestError, "one word, got 2"),
        ("/blind now", RequestError, "no word, got 1"),
        ("/path smell", PathError, "'smell'"),
        ("/sight 'half", RequestError, "with quotes closed"),
        ("/", RequestError, "a command"),
        ("/save talk.jsonl", RequestError, "empty conversation"),
    ],
)
def test_a_wrong_command_is_told(run, line, error, said):
    async def work(session, ask):
        with pytest.raises(error, match=said):
            session.command(line)

    talk(run, work)


def test_a_question_that_fails_leaves_the_conversation_as_it_was(run, tmp_path):
    (tmp_path / "broken.npy").write_bytes(b"no array")

    async def work(session, ask):
        await ask("Say hello.")
        before = list(session.turns)
        session.command(f"/sight {tmp_path / 'broken.npy'}")
        with pytest.raises(PathWeaveError, match=r"broken\.npy"):
            await ask("What is it?")
        assert session.turns == before
        return await ask("Go on.")

    talk(run, work)


def test_an_answer_that_is_left_keeps_what_was_said(run):
    async def work(session, ask):
        pieces = session.ask("Say hello.")
        said = await anext(pieces)
        await pieces.aclose()
        return said, session.turns

    _, (said, turns) = talk(run, work)
    assert turns[-1] == {"role": "assistant", "content": said}
    assert json.dumps(turns)
