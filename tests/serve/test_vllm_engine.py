import asyncio
import logging
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pathweave.errors import PathError, RequestError, RunError
from pathweave.model.prompt import Native
from pathweave.runs.assistant import load
from pathweave.runs.run_directory import RunDirectory
from pathweave.serve import vllm_engine
from pathweave.serve.engine import Asked, EngineError, OverloadError, whole
from pathweave.serve.in_process import InProcess
from pathweave.serve.page import paths_taken
from pathweave.serve.vllm_engine import (
    KEY,
    Remote,
    VllmEngine,
    find_engine,
    prove,
    remote_engine,
)
from tests.serve.stand_in import LIMIT, Refused, stand_in
from tests.tiny import byte_tokenizer, chain, medium, tiny_base, tiny_llm, tiny_model

LONG = 40


@pytest.fixture(scope="module")
def model():
    return tiny_model(*chain("sight", "sound", "range"))


@pytest.fixture
def server():
    """It serves the language model of ``model``, as weights of its own."""
    with stand_in(tiny_base().llm, byte_tokenizer()) as made:
        yield made


def prompts(count):
    kinds = (("sight", 1), ("sound", 1), ("range", 2))
    mixed = [
        [medium(kinds[i % 3][0], units=kinds[i % 3][1], seed=i), "What is it? " * (i % 4 + 1)]
        for i in range(count)
    ]
    return [*mixed[:-2], ["Say hello."], [*mixed[0], *mixed[1]]]


def run(engine, work):
    async def main():
        try:
            return await asyncio.wait_for(work(engine), timeout=60)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask(model, server, work, **options):
    remote = find_engine(server.url, "vllm serve tiny")
    return run(VllmEngine(model, remote, **options), work)


def ask_all(asked, **gather):
    return lambda engine: asyncio.gather(*(whole(engine.stream(one)) for one in asked), **gather)


def test_answers_are_those_of_the_engine_of_this_process(model, server):
    """Text, tokens, tokens of the prompt and why an answer ends."""
    asked = [Asked(prompt, i % 9 + 1) for i, prompt in enumerate(prompts(24))]
    [first] = run(InProcess(model), ask_all([Asked(prompts(24)[0], 12)]))
    asked.append(Asked(prompts(24)[0], 12, stop=(first.text[-2:],)))
    expected = run(InProcess(model), ask_all(asked))
    assert ask(model, server, ask_all(asked), max_batch=5) == expected
    assert len({answer.text for answer in expected}) > 5
    assert {answer.finish for answer in expected} == {"stop", "length"}


def test_an_answer_comes_in_pieces_while_it_is_made(model, server):
    gate = threading.Event()
    server.mood = lambda body, step: gate.wait(10) and None if step == 4 else None

    async def work(engine):
        said = ""
        async for piece in engine.stream(Asked(prompts(3)[0], 8)):
            said += piece.text
            gate.set()  # the fifth token waits for the first piece
        return said

    [expected] = run(InProcess(model), ask_all([Asked(prompts(3)[0], 8)]))
    assert ask(model, server, work) == expected.text
    assert gate.is_set()


def test_requests_say_all_that_a_models_own_settings_could_change(model, server):
    asked = Asked(["Say hello."], 3, temperature=0.5, top_p=0.9, seed=7, stop=("x",))
    ask(model, server, ask_all([asked]))
    [body] = server.bodies
    assert body.pop("prompt_embeds")
    assert body == {
        "model": "tiny", "stream": True, "max_tokens": 3, "temperature": 0.5, "top_p": 0.9,
        "seed": 7, "stop": ["x"], "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "skip_special_tokens": True,
        "return_token_ids": True, "stop_token_ids": [0],
    }  # fmt: skip


def test_a_caller_who_leaves_closes_the_connection_and_nobody_elses(model, server):
    leaving = threading.Event()

    def mood(body, step):
        if body["max_tokens"] == LONG and step == 2:
            leaving.wait(10)
        return None

    server.mood = mood
    server.llm.generation_config.eos_token_id = None

    async def work(engine):
        pieces = engine.stream(Asked(prompts(3)[0], LONG))
        other = asyncio.create_task(whole(engine.stream(Asked(prompts(4)[1], 6))))
        await anext(pieces)
        await pieces.aclose()
        await asyncio.sleep(0.1)
        leaving.set()
        return await other, await asyncio.to_thread(server.broken.wait, 10)

    answer, has_broken = ask(model, server, work)
    assert has_broken
    assert [answer] == run(InProcess(model), ask_all([Asked(prompts(4)[1], 6)]))


def test_one_caller_too_many_is_refused(model, server):
    gate = threading.Event()
    server.mood = lambda body, step: gate.wait(10) and None

    async def work(engine):
        waiting = [asyncio.create_task(whole(engine.stream(Asked(["hi"], 1)))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="at most 2 callers may wait"):
            await whole(engine.stream(Asked(["hi"], 1)))
        gate.set()
        await asyncio.gather(*waiting)
        return await whole(engine.stream(Asked(["hi"], 1)))

    assert ask(model, server, work, max_waiting=2).finish


def refuse(status, said):
    def mood(body, step):
        if step == 0 and body["max_tokens"] == 5:
            raise Refused(status, said)
        return None

    return mood


def break_off(said):
    return lambda body, step: said if step == 3 and body["max_tokens"] == 5 else None


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        (break_off(b""), "must end its answers, got an answer that breaks off; start it with"),
        (break_off(b"data: {"), "must send tokens (return_token_ids), got {"),
        (break_off(b'data: {"error": {"message": "no memory"}}\n\n'), "got no memory; start"),
        (break_off(b'data: {"choices": [{"token_ids": null, "finish_reason": null}]}\n'), "tokens"),
        (
            break_off(b'data: {"choices": [{"token_ids": [], "finish_reason": "abort"}]}\n'),
            "got one that ended for 'abort'",
        ),
        (refuse(400, {"error": {"message": "no embeds"}}), "got 400 no embeds; start it with"),
        (refuse(500, b"oh\nno"), "got 500 oh no; start it with: vllm serve tiny"),
        (refuse(401, {}), f"must be given its key, got 401; set {KEY}"),
    ],
)
def test_an_answer_that_fails_is_told_and_the_others_are_served(model, server, mood, said):
    server.llm.generation_config.eos_token_id = None
    server.mood = mood
    asked = [Asked(prompts(3)[0], 4), Asked(prompts(3)[0], 5), Asked(["Say hello."], 4)]
    first, failed, last = ask(model, server, ask_all(asked, return_exceptions=True))
    assert isinstance(failed, EngineError)
    assert said in str(failed)
    assert "\n" not in str(failed)
    assert first.finish == last.finish == "length"


def test_an_engine_that_dies_and_comes_back_is_asked_again(model, server):
    remote = find_engine(server.url, "vllm serve tiny")
    with stand_in(tiny_base().llm, byte_tokenizer()) as dead:
        away = Remote(dead.url, "vllm serve tiny", "tiny", LIMIT)

    async def work(engine):
        engine.remote = away
        with pytest.raises(EngineError, match=r"must be there .* ConnectError.*: vllm serve tiny"):
            await whole(engine.stream(Asked(["hi"], 1)))
        assert "must be there, got ConnectError" in await engine.problem()
        engine.remote = remote
        assert await engine.problem() is None
        return await whole(engine.stream(Asked(["hi"], 1)))

    assert run(VllmEngine(model, remote), work).finish


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ([medium("smell"), "What?"], PathError, "smell"),
        (["x" * 5000], RunError, "the context of the language model"),
        (["x" * LIMIT], RunError, "start it with a larger --max-model-len"),
        ([Native("image", None), "What?"], RequestError, "must be read by a path"),
    ],
)
def test_a_prompt_that_cannot_be_answered_fails_alone(model, server, prompt, error, said):
    asked = [Asked(prompts(3)[0], 4), Asked(prompt, 4), Asked(["Say hello."], 4)]
    first, failed, last = ask(model, server, ask_all(asked, return_exceptions=True))
    assert isinstance(failed, error)
    assert said in str(failed)
    assert [first, last] == run(InProcess(model), ask_all([asked[0], asked[2]]))


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_is_full_is_no_failure(model, server, status):
    server.mood = refuse(status, {"error": {"message": "full"}})
    with pytest.raises(OverloadError, match="is full, got"):
        ask(model, server, ask_all([Asked(["hi"], 5)]))


def test_a_prompt_whose_rows_cannot_be_written_is_told(model, server, monkeypatch):
    real = vllm_engine.wire

    def broken(rows):
        if len(rows) < 30:
            raise MemoryError("too much")
        return real(rows)

    monkeypatch.setattr(vllm_engine, "wire", broken)
    asked = [Asked(["x" * 40], 2), Asked(["hi"], 2), Asked(["y" * 40], 2)]
    first, failed, last = ask(model, server, ask_all(asked, return_exceptions=True))
    assert "MemoryError: too much" in str(failed)
    assert first.finish == last.finish == "length"


def test_ranking_is_refused_with_the_reason(model, server):
    with pytest.raises(RequestError, match=r"gives no likelihoods .* without --engine"):
        ask(model, server, lambda engine: engine.rank(["hi"], ["yes", "no"]))


def test_callers_are_told_when_the_engine_closes(model, server):
    gate = threading.Event()
    server.mood = lambda body, step: gate.wait(10) and None

    async def work(engine):
        waiting = [asyncio.create_task(whole(engine.stream(Asked(["hi"], 9)))) for _ in range(5)]
        while len(server.bodies) < 3:
            await asyncio.sleep(0.01)
        await engine.close()
        gate.set()
        with pytest.raises(EngineError, match="shutting down"):
            await whole(engine.stream(Asked(["hi"], 1)))
        return await asyncio.gather(*waiting, return_exceptions=True)

    for answer in ask(model, server, work):
        assert isinstance(answer, EngineError)
        assert "shutting down" in str(answer)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000", "must be at a URL such as"),
        ("file:///etc", "must be at a URL such as"),
        ("http://host:port", "must be at a URL such as"),
        ("http://user:secret@127.0.0.1:8000", f"a key goes into {KEY}"),
        ("http://127.0.0.1:9", "must answer, got ConnectError"),
    ],
)
def test_a_url_without_an_engine_is_refused(url, said):
    with pytest.raises(EngineError) as caught:
        find_engine(url, "vllm serve tiny")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("listed", [b"<html>", {"data": []}, {"data": [{"id": "gpt"}]}, []])
def test_what_is_no_vllm_is_refused(server, listed):
    server.listed = listed
    with pytest.raises(EngineError, match="vllm serve tiny"):
        find_engine(f"{server.url}/v1/", "vllm serve tiny")


def test_the_key_is_sent_and_never_logged(model, server, monkeypatch, caplog):
    server.key = "secret-key"
    asked = ask_all([Asked(["hi"], 1)])
    with pytest.raises(EngineError, match=f"set {KEY} to the key"):
        ask(model, server, asked)
    monkeypatch.setenv(KEY, server.key)
    with caplog.at_level(logging.DEBUG):
        assert ask(model, server, asked)[0].finish
    assert caplog.records
    assert server.key not in caplog.text


@pytest.fixture
def served(recipe_file):
    """The language model of the finished run, served from its own directory."""
    directory = recipe_file.parent / "base" / "llm"
    llm = AutoModelForCausalLM.from_pretrained(directory)
    with stand_in(llm, AutoTokenizer.from_pretrained(directory)) as server:
        yield server


@pytest.mark.usefixtures("home")
def test_a_run_is_answered_through_an_engine_as_in_this_process(served, finished_run, recipe_file):
    assistant = load(finished_run, layers=False)
    assistant.root = recipe_file.parent
    engine = remote_engine(assistant.model, finished_run, served.url)
    contents = [
        [{"type": name, "path": f"{name}-test-{i}.npy"}, {"type": "text", "text": "How is it?"}]
        for name in ("sight", "sound", "tilt")
        for i in range(3)
    ]
    asked = [Asked(assistant.prompt(content), 6) for content in contents]
    answers = run(engine, ask_all(asked))
    local = load(finished_run)
    local.root = recipe_file.parent
    assert [answer.text for answer in answers] == local.ask(contents, max_tokens=6)


@pytest.mark.usefixtures("home")
def test_the_page_tells_the_same_ways_whoever_decodes(finished_run, recipe_file):
    local, remote = load(finished_run), load(finished_run, layers=False)
    local.root = recipe_file.parent
    prompt = local.prompt(
        [{"type": "tilt", "path": "tilt-test-0.npy"}, {"type": "text", "text": "?"}]
    )
    [way] = paths_taken(remote.model, prompt)
    assert way["gates"]["all"]
    assert [way] == paths_taken(local.model, prompt)


def takes_no_embeddings(body, step):
    raise Refused(400, {"error": {"message": "You must set `--enable-prompt-embeds`"}})


@pytest.mark.usefixtures("home")
def test_an_engine_of_another_model_is_refused(served, finished_run):
    model = load(finished_run, layers=False).model
    torch.manual_seed(3)
    served.llm = tiny_llm(byte_tokenizer())
    with pytest.raises(EngineError, match=r"must serve the language model of the run, got 'tiny',"):
        remote_engine(model, finished_run, served.url)
    served.mood = takes_no_embeddings
    with pytest.raises(EngineError, match=r"llm --dtype \w+ --enable-prompt-embeds --host 127.0.0"):
        remote_engine(model, finished_run, served.url)


def test_where_nothing_is_recorded_ids_and_embeddings_must_be_answered_alike(server, tmp_path):
    model, run = tiny_model(*chain("sight")), RunDirectory(tmp_path)
    remote = find_engine(server.url, "vllm serve tiny")
    assert prove(model, run, remote) == 1
    assert ["prompt" in body for body in server.bodies] == [True, False]
    torch.manual_seed(3)
    server.llm.get_input_embeddings().weight.data.normal_(std=0.2)
    with pytest.raises(EngineError, match="1 of 1 recorded questions"):
        prove(model, run, remote)
