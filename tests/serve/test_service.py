import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import openai
import pytest
import torch

from pathweave.decoders import Values
from pathweave.encoders.media import Array
from pathweave.runs.assistant import load
from pathweave.serve.in_process import InProcess
from pathweave.serve.sandbox import Sandbox
from pathweave.serve.service import Limits, Service, load_served
from pathweave.storage.atomic import features_home
from tests.serve.own_decoders import Sleeper
from tests.serve.served import FILES, WHAT, ask, make_assistant, part, said, served, user

LONG = 1500


NAME = "t" * 4000  # every piece of an answer says it


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A server that gives up after a second and a half, and ends decoders after one."""
    sandbox = Sandbox(1, seconds=1.0)
    sandbox.start().join()
    kinds = {"sleeper": (Sleeper(), Array), "array": (Values(), Array)}
    assistant = make_assistant(tmp_path_factory.mktemp("features"), sandbox.guard, kinds)
    limits = Limits(max_body=9000, max_tokens=LONG, seconds=1.5, max_preparing=4)
    engine = InProcess(assistant.model, max_batch=8, max_waiting=2)
    service = Service(assistant, engine, NAME, limits)
    with served(service, sandbox, buffer=4096) as address:
        yield service, address


def chat(address, **body):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **body}
    return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30)


@contextmanager
def connected(address, sent, buffer=None):
    """Yield a socket that has sent some bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as door:
        if buffer:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        door.settimeout(20)
        door.connect((host, int(port)))
        door.sendall(sent)
        yield door


def raw(body, length=None, kind="application/json"):
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body


def request(**more):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": LONG, **more}
    return raw(json.dumps(body).encode())


def test_half_a_request_is_told_and_others_are_answered_meanwhile(patient):
    _, address = patient
    with connected(address, raw(b'{"messages": ', 500)) as half:
        assert chat(address).status_code == 200
        assert b"408" in half.recv(100)
    with connected(address, b"POST /v1/chat/comp"):
        assert chat(address).status_code == 200


def test_an_answer_that_takes_too_long_is_told_also_in_mid_stream(patient):
    _, address = patient
    late = chat(address, max_tokens=LONG)
    assert late.status_code == 504
    assert "must be answered within 1.5 s" in late.json()["error"]["message"]
    with openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client:
        pieces = ask(client, user(WHAT), LONG, NAME, stream=True)
        with pytest.raises(openai.APIError, match="must be answered within"):
            list(pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_work(service, address, stream):
    before = service.engine.steps
    with connected(address, request(stream=stream)) as gone:
        while service.engine.steps < before + 5:
            time.sleep(0.01)
        if stream:
            assert gone.recv(10)
    seen = -1
    while service.engine.steps != seen:
        seen = service.engine.steps
        time.sleep(0.3)
    assert seen - before < LONG


def given_up(address):
    told = httpx.get(f"{address}/metrics").text
    label = 'requests_total{route="/v1/chat/completions",status="499"}'
    return [line for line in told.splitlines() if label in line]


def test_a_client_that_never_reads_is_given_up(patient):
    _, address = patient
    before = given_up(address)
    with connected(address, request(stream=True), buffer=2048):
        assert chat(address).status_code == 200
        deadline = time.monotonic() + 20
        while given_up(address) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_one_caller_too_many_is_told_to_come_back(patient):
    service, address = patient
    gate, held = threading.Event(), threading.Event()

    def hold():
        held.set()
        gate.wait(10)

    holder = threading.Thread(target=lambda: asyncio.run(service.engine.call(hold)))
    holder.start()
    held.wait(10)
    answers = []
    callers = [threading.Thread(target=lambda: answers.append(chat(address))) for _ in range(4)]
    for caller in callers:
        caller.start()
    while sum(answer.status_code == 429 for answer in answers) < 2:
        time.sleep(0.01)
    gate.set()
    for thread in (holder, *callers):
        thread.join()
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 2
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]


def test_too_many_requests_at_once_are_not_read(patient):
    _, address = patient
    halves = [connected(address, raw(b"{", 500)) for _ in range(4)]
    for half in halves:
        half.__enter__()
    time.sleep(0.2)
    refused = chat(address)
    for half in halves:
        half.__exit__(None, None, None)
    assert refused.status_code == 429
    assert "at most 4 requests" in refused.json()["error"]["message"]
    while chat(address).status_code == 429:  # until the server has seen them go
        time.sleep(0.02)
    assert chat(address).status_code == 200


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_body_of_100_mb_is_refused_and_not_kept(address, is_stated):
    pieces = [b" " * (1 << 20)] * 100
    headers = {"content-type": "application/json"}
    headers |= {"content-length": str(100 << 20)} if is_stated else {}
    made = httpx.post(
        f"{address}/v1/chat/completions", content=iter(pieces), headers=headers, timeout=60
    )
    assert made.status_code == 413
    assert made.json()["error"]["code"] == "too_large"
    assert "at most 1,048,576 bytes, got 104,857,600" in made.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "data", "said_of_it"),
    [
        ("hog", b"900", "at most 300 MB"),
        ("crash", b"x", "ends the process"),
    ],
)
def test_a_bomb_ends_its_own_request_and_nothing_else(client, name, data, said_of_it):
    refused = []

    def send():
        with pytest.raises(openai.BadRequestError, match=said_of_it) as told:
            ask(client, user(part(name, data), WHAT))
        refused.append(told.value.code)

    bomb = threading.Thread(target=send)
    bomb.start()
    answers = {said(ask(client, user(part("array"), WHAT))) for _ in range(3)}
    bomb.join()
    assert refused == ["bad_medium"]
    assert len(answers) == 1


def test_a_decoder_that_sleeps_is_ended_and_others_are_answered(patient):
    _, address = patient
    late = chat(address, messages=user(part("sleeper", b"60"), WHAT))
    assert late.status_code == 400
    assert "must be decoded within 1 s" in late.json()["error"]["message"]
    assert chat(address, messages=user(part("array"), WHAT)).status_code == 200


def test_many_callers_with_media_get_their_own_answers(client, assistant):
    names = [*FILES] * 3
    answers = {}

    def send(number, name):
        answers[number] = said(ask(client, user(part(name), WHAT), 4))

    callers = [threading.Thread(target=send, args=pair) for pair in enumerate(names)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for number, name in enumerate(names):
        medium = {"type": name, "data": FILES[name]}
        assert answers[number] == assistant.ask([[medium, WHAT]], 4)[0]


@pytest.mark.usefixtures("home")
def test_what_a_server_reads_is_not_written_to_disk(
    finished_run, recipe_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path))
    served_run, local = load_served(str(finished_run), lambda decoder: decoder), load(finished_run)
    served_run.root = local.root = recipe_file.parent
    content = [{"type": "sight", "path": "sight-test-0.npy"}, {"type": "text", "text": "How?"}]
    found = served_run.prompt(content)
    assert not features_home().exists()
    [expected, _] = local.prompt(content)
    assert features_home().exists()
    assert torch.equal(found[0].features, expected.features)
