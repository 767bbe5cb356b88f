import base64
import io
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import partial

import httpx
import openai
import pytest
from sse_starlette.sse import AppStatus

from pathweave.decoders import Picture
from pathweave.model.rank import log_likelihoods
from pathweave.runs.assistant import load
from pathweave.serve.fetching import Fetcher
from pathweave.serve.in_process import InProcess
from pathweave.serve.service import Limits, Service, load_served
from tests.serve.served import (
    CSV,
    DECODERS,
    FILES,
    WHAT,
    ask,
    make_assistant,
    part,
    png,
    said,
    served,
    uri,
    user,
    wav,
)
from tests.vision_llms import picture, write_vision_llm
from tests.whole_runs import command


def expected(assistant, *content, tokens=5, path=None, blind=False):
    return assistant.ask([content], tokens, path=path, blind=blind)[0]


@pytest.fixture
def small(tmp_path):
    """A service of its own, which may be ended."""
    kinds = {"array": DECODERS["array"]}
    assistant = make_assistant(tmp_path, lambda decoder: decoder, kinds)
    return Service(assistant, InProcess(assistant.model), "tiny", Limits(max_tokens=1500))


@pytest.mark.parametrize("name", FILES)
def test_a_medium_is_answered_as_the_assistant_answers(client, assistant, name):
    made = ask(client, user(part(name), WHAT))
    assert said(made) == expected(assistant, {"type": name, "data": FILES[name]}, WHAT)
    details = made.usage.prompt_tokens_details.model_dump()
    tokens = assistant.model.tokens_of(
        assistant.prompt([{"type": name, "data": FILES[name]}, WHAT])[0]
    )
    assert details[f"{name}_tokens"] == tokens > 0
    assert details["text_tokens"] + tokens == made.usage.prompt_tokens
    assert made.usage.completion_tokens == 5
    assert made.choices[0].finish_reason == "length"
    assert made.model == "tiny"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (
            {"type": "input_audio", "input_audio": {"data": uri(wav())[37:], "format": "wav"}},
            "audio",
        ),
        (part("image", FILES["audio"], "audio/wav"), "audio"),
        (part("image", CSV, "text/csv"), "tilt"),
        (part("image", FILES["cloud"], "application/x-npy;modality=cloud"), "cloud"),
        ({"type": "file", "file": {"file_data": uri(CSV), "filename": "a.csv"}}, "tilt"),
        ({"type": "file", "file": {"file_data": uri(FILES["cloud"], "model/ply")}}, "cloud"),
        ({"type": "image_url", "image_url": {"url": "data:,%89", "detail": "low"}}, None),
    ],
)
def test_a_stock_client_sends_any_medium_by_what_it_has(client, assistant, content, name):
    if name is None:
        with pytest.raises(openai.BadRequestError, match="turn 1, part 1 must be a whole picture"):
            ask(client, user(content, WHAT))
        return
    made = ask(client, user(content, WHAT))
    assert said(made) == expected(assistant, {"type": name, "data": FILES[name]}, WHAT)


def test_several_turns_and_media_are_read_in_order(client, assistant):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [part("image"), part("audio"), WHAT]},
        {"role": "assistant", "content": "a picture", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "And the sound?"},
    ]
    ours = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image", "data": FILES["image"]},
                {"type": "audio", "data": FILES["audio"]},
                WHAT,
            ],
        },
        {"role": "assistant", "content": "a picture"},
        {"role": "user", "content": "And the sound?"},
    ]
    assert said(ask(client, messages)) == assistant.ask([ours], 5)[0]


def test_a_stream_gives_the_same_answer_in_pieces(client):
    whole = ask(client, user(part("image"), WHAT), 20)
    pieces = list(
        ask(
            client,
            user(part("image"), WHAT),
            20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *spoken, last = pieces
    deltas = [piece.choices[0].delta.content for piece in spoken]
    assert "".join(filter(None, deltas)) == said(whole)
    assert len(list(filter(None, deltas))) > 3
    assert [piece.choices[0].finish_reason for piece in spoken][-1] == "length"
    assert last.choices == []
    assert last.usage == whole.usage


def test_the_events_end_as_those_of_openai_do(address):
    body = {"messages": user(WHAT), "max_tokens": 2, "stream": True}
    lines = httpx.post(f"{address}/v1/chat/completions", json=body).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all("usage" not in json.loads(line.removeprefix("data: ")) for line in lines[:-2])


def test_the_id_of_a_path_reads_every_medium_with_it(client, assistant):
    made = ask(client, user(part("array"), WHAT), model="tiny:both")
    medium = {"type": "array", "data": FILES["array"]}
    assert said(made) == expected(assistant, medium, WHAT, path="both")
    assert said(made) != expected(assistant, medium, WHAT)
    with pytest.raises(openai.BadRequestError, match=r"a medium must be one of .* got .image."):
        ask(client, user(part("image"), WHAT), model="tiny:both")


def test_models_are_the_base_and_one_for_each_path(client):
    models = client.models.list().data
    assert models[0].id == "tiny"
    assert {model.id for model in models} > {f"tiny:{name}" for name in (*FILES, "both")}
    assert set(models[0].media) >= set(FILES)
    assert set(models[-1].media) == {"tilt", "array"}
    assert models[-1].parent == "tiny"
    assert client.models.retrieve("tiny:tilt").id == "tiny:tilt"
    with pytest.raises(
        openai.NotFoundError, match=r"model must be one of .*did you mean 'tiny:tilt'"
    ):
        client.models.retrieve("tiny:til")


def test_blind_answers_owe_nothing_to_the_medium(client, assistant):
    blind = {"extra_body": {"pathweave": {"blind": True}}}
    answers = {
        said(ask(client, user(part("image", png(c)), WHAT), **blind)) for c in ("red", "blue")
    }
    medium = {"type": "image", "data": FILES["image"]}
    assert answers == {expected(assistant, medium, WHAT, blind=True)}
    assert answers != {said(ask(client, user(part("image"), WHAT)))}


def test_draws_are_those_of_the_seed_and_stop_words_end(client):
    drawn = [ask(client, user(WHAT), 30, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert said(drawn[0]) == said(drawn[1]) != said(drawn[2])
    answer = said(ask(client, user(WHAT), 30))
    stop = answer[5:7]
    cut = ask(client, user(WHAT), 30, stop=[stop])
    assert said(cut) == answer.split(stop)[0].rstrip()
    assert cut.choices[0].finish_reason == "stop"


def test_responses_answer_as_completions_do(client):
    question = [
        {"role": "user", "content": [
            {"type": "input_image", "image_url": uri(FILES["image"], "image/png")},
            {"type": "input_text", "text": "What is it?"},
        ]}
    ]  # fmt: skip
    whole = ask(
        client, [{"role": "system", "content": "Be brief."}, *user(part("image"), WHAT)], 20
    )
    asked = {"model": "tiny", "input": question, "instructions": "Be brief.", "store": False}
    made = client.responses.create(**asked, max_output_tokens=20)
    assert made.output_text == said(whole)
    assert made.status == "incomplete"
    assert made.usage.input_tokens == whole.usage.prompt_tokens
    events = list(client.responses.create(**asked, max_output_tokens=20, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == said(whole)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == said(whole)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    plain = client.responses.create(model="tiny", input="Say hello.", max_output_tokens=3)
    assert plain.output_text == said(ask(client, user({"type": "text", "text": "Say hello."}), 3))


COLOURS = {"red": None, "blue": None}


def test_typed_questions_give_every_allowed_answer_its_probability(address, assistant):
    body = {
        "model": "tiny",
        "state": [part("image")],
        "questions": {
            "colour": {"type": "choice", "instructions": "Which?", "criteria": COLOURS},
            "round": {"type": "noul", "instructions": "Is it round?"},
            "size": {"type": "score", "instructions": "How large?", "criteria": ["small", "large"]},
        },
    }  # fmt: skip
    made = httpx.post(f"{address}/v1/systemone", json=body).json()
    prompts = {
        "colour": ("Which?", ["red", "blue"]),
        "round": ("Is it round?", ["yes", "no"]),
        "size": ("How large?", ["small", "large"]),
    }
    shares = {}
    for name, (text, choices) in prompts.items():
        prompt = assistant.prompt(
            [{"type": "image", "data": FILES["image"]}, {"type": "text", "text": text}]
        )
        shares[name] = log_likelihoods(assistant.model, [prompt], choices)[0].softmax(0).tolist()
    colour, is_round, size = made["answers"].values()
    assert list(colour["probabilities"].values()) == pytest.approx(shares["colour"], rel=1e-3)
    assert colour["choice"] == max(colour["probabilities"], key=colour["probabilities"].get)
    assert is_round == {"type": "noul", "noul": pytest.approx(shares["round"][0], rel=1e-3)}
    assert size["score"] == pytest.approx(shares["size"][1], rel=1e-3)
    assert made["usage"]["input_tokens"] > 0
    asset = base64.b64encode(FILES["image"]).decode()
    again = {
        **body,
        "state": "<it>",
        "assets": {"<it>": {"data_base64": asset}},
        "questions": {"round": body["questions"]["round"]},
    }
    assert httpx.post(f"{address}/v1/systemone", json=again).json()["answers"]["round"] == is_round
    again["assets"]["<it>"]["modality"] = "audio"
    made = httpx.post(f"{address}/v1/systemone", json=again)
    assert "must be a whole sound" in made.json()["error"]["message"]


def test_what_a_base_reads_by_itself_is_read_and_counted(tmp_path, home, sandbox):
    assistant = load_served(str(write_vision_llm(tmp_path / "llava", "llava")), sandbox.guard)
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    service = Service(assistant, InProcess(assistant.model), "llava")
    with (
        served(service) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        made = ask(client, user(part("image", stream.getvalue()), WHAT), 4, "llava")
        assert [model.media for model in client.models.list()] == [{"image": Picture.noun}]
    medium = {"type": "image", "data": stream.getvalue()}
    assert said(made) == expected(assistant, medium, WHAT, tokens=4)
    without = assistant.model.length(assistant.prompt([WHAT]))
    details = made.usage.prompt_tokens_details.model_dump()
    assert details["image_tokens"] == made.usage.prompt_tokens - without > 0


def test_an_address_inside_is_refused_where_fetching_is_on(small):
    small.fetcher = Fetcher(["localhost", "127.0.0.1"])
    with (
        served(small) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        for host in ("localhost", "127.0.0.1"):
            inside = {"type": "array_url", "array_url": {"url": f"http://{host}/a.npy"}}
            with pytest.raises(openai.BadRequestError, match="must be on the public internet"):
                ask(client, user(inside, WHAT))


def test_health_and_metrics_are_told(client, address):
    ask(client, user(part("cloud"), WHAT), 3)
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    told = httpx.get(f"{address}/metrics").text
    assert 'pathweave_requests_total{route="/v1/chat/completions",status="200"}' in told
    for line in (
        'pathweave_tokens_total{kind="cloud"}',
        "pathweave_steps_total",
        "pathweave_waiting 0.0",
    ):
        assert line in told


def test_a_key_is_asked_for_where_there_is_one(small):
    with served(small, key="secret") as address:
        for key, status in (
            ("secret", 200),
            ("secre", 401),
            ("secrets", 401),
            ("s\u00e9cret", 401),
        ):
            headers = {"authorization": f"Bearer {key}".encode()}
            for path in ("v1/models", "metrics"):
                assert httpx.get(f"{address}/{path}", headers=headers).status_code == status
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="no", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="the key of this server"),
        ):
            ask(client, user(WHAT))
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_an_answer_under_way_is_told_when_the_server_ends(small):
    told = []

    def listen(pieces):
        with pytest.raises(openai.APIError) as error:
            list(pieces)
        told.append(str(error.value))

    with served(small) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        pieces = ask(client, user(WHAT), 1500, stream=True)
        next(iter(pieces))
        thread = threading.Thread(target=listen, args=(pieces,))
        thread.start()
    thread.join()
    client.close()
    assert told == ["the server is shutting down; ask again when it is back"]


def test_a_page_of_the_web_cannot_ask_a_local_server(address):
    made = httpx.get(f"{address}/v1/models", headers={"host": "evil.example"})
    assert made.status_code == 403
    assert "must be asked as one of" in made.json()["error"]["message"]


def test_the_command_serves_a_run_until_it_is_stopped(
    finished_run, home, capsys, monkeypatch, request
):
    monkeypatch.setattr(AppStatus, "should_exit", False)  # put back: a signal sets it for good
    # A shell that starts the tests in the background lets them ignore it.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = {}

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def talk():
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            name = until_there(client.models.list).data[0].id
            seen["answer"] = said_by(client, name)
        os.kill(os.getpid(), signal.SIGINT)

    def until_there(ask):
        while True:
            with suppress(openai.APIConnectionError):
                return ask()
            time.sleep(0.05)

    def said_by(client, name):
        return said(ask(client, user(WHAT), 3, name))

    thread = threading.Thread(target=talk)
    thread.start()
    assert command("serve", finished_run, "--port", port, "--decoders", "1") == 130
    thread.join()
    lines = capsys.readouterr().out.splitlines()
    seen |= dict(line.split(": ", 1) for line in lines if ": " in line)
    assert seen["address"] == f"http://127.0.0.1:{port}/v1"
    assert seen["models"].split(", ") == ["run", "run:sight", "run:sound", "run:tilt"]
    assert seen["answer"] == load(finished_run).ask([[WHAT]], 3)[0]


@pytest.mark.parametrize(
    ("words", "said_of_it"),
    [
        (["nowhere"], "base must be one of ['mini']"),
        (["mini", "--host", "300.1.1.1"], "must have an address that is free"),
    ],
)
def test_what_cannot_be_served_is_told(capsys, words, said_of_it):
    assert command("serve", *words, "--port", "0") == 2
    assert said_of_it in capsys.readouterr().err
