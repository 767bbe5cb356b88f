import json
import re

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.errors import PathWeaveError
from pathweave.serve.openai_messages import refusal, turns_of
from pathweave.serve.openai_requests import ChatRequest, ResponsesRequest, read_request
from pathweave.serve.typed_questions import TypedRequest
from tests.serve.served import CSV, DECODERS, FILES, WHAT, ask, part, uri, user

READS = {name: decoder for name, (decoder, _) in DECODERS.items()}
TEXT = {"role": "user", "content": "What is it?"}


def bad(**fields):
    return {"model": "tiny", "messages": [TEXT], "max_tokens": 2, **fields}


BAD_MESSAGES = {
    "no message": ([], "must have 1 to 20 messages, got 0"),
    "too many messages": ([TEXT] * 21, "must have 1 to 20 messages, got 21"),
    "an empty text": ([{"role": "user", "content": " \n"}], "turn 1 must have a text or a medium"),
    "no part": (user(), "turn 1 must have a text or a medium"),
    "no content": ([{"role": "user"}], "content must be a text or a list"),
    "a number": ([{"role": "user", "content": 7}], "content must be a text or a list"),
    "no object": (["What?"], "turn 1 must be an object, got 'What"),
    "10,000 parts": (user(*[WHAT] * 10_000), "at most 20 parts, got 10,000 parts"),
    "an unknown role": ([{**TEXT, "role": "usr"}], "role must be one of .*did you mean 'user'"),
    "a tool": ([{**TEXT, "role": "tool"}], "role must be one of"),
    "an answer last": (
        [TEXT, {"role": "assistant", "content": "a"}],
        "last turn must be of the us",
    ),
    "a late system message": (
        [TEXT, {"role": "system", "content": "Be brief."}, TEXT],
        "turn 2: a system message must come before all others",
    ),
    "a medium of the assistant": (
        [{"role": "assistant", "content": [part("image")]}, TEXT],
        "a message of role 'assistant' must be text",
    ),
    "a name": ([{**TEXT, "name": "Ann"}], "field 'name' must be left out, got 'Ann'"),
    "a tool call": (
        [TEXT, {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}, TEXT],
        "field 'tool_calls' must be left out",
    ),
    "an unknown part": (user({"type": "imge_url"}), "did you mean 'image_url'"),
    "a file of the server": (user({"type": "image", "path": "a.png"}), "did you mean 'image_url'"),
    "an unknown modality": (
        user({"type": "smell_url", "smell_url": {"url": "x"}}),
        "got 'smell_url'",
    ),
    "no text": (user({"type": "text"}), "text must be a string"),
    "no address": (user({"type": "image_url"}), "must be an object with the string 'url'"),
    "a foreign address": (
        user({"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}),
        "nothing is fetched by this server, got 'http://10.0.0.1/a.png'",
    ),
    "a file elsewhere": (
        user({"type": "file", "file": {"file_id": "file-1"}}),
        "file must be an object with the string 'file_data'",
    ),
    "a file of an unknown kind": (
        user({"type": "file", "file": {"file_data": uri(CSV), "filename": "a.zzz"}}),
        "name it: data:MIME;modality=NAME;base64",
    ),
    "a file of two kinds": (
        user({"type": "file", "file": {"file_data": uri(FILES["array"], "application/x-npy")}}),
        "name it: data:MIME;modality=NAME;base64",
    ),
    "broken base64": (
        user({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}),
        "turn 1, part 1 must be base64",
    ),
    "no comma": (
        user({"type": "image_url", "image_url": {"url": "data:image/png"}}),
        "must be a whole data URI",
    ),
    "a lie": (user(part("image", FILES["audio"], "image/png")), "got WAVE data"),
    "another lie": (user(part("audio", FILES["image"], "audio/wav")), "got PNG data"),
    "an empty medium": (user(part("image", b"")), "must be an object with|an empty file"),
    "half a medium": (user(part("image", FILES["image"][:40])), "must be a whole picture"),
    "too many pixels": (
        user(part("image", b"P5 200 200 255 " + bytes(40_000))),
        "at most 10,000 pixels, got 200 x 200",
    ),
    "too long a text": (user({"type": "text", "text": "x" * 3000}), "the context of the language"),
    "half a letter": (user({"type": "text", "text": "\ud800"}), "text must be UTF-8, got half a"),
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_a_bad_message_is_refused_with_the_remedy(client, case):
    messages, said = BAD_MESSAGES[case]
    body = json.dumps(bad(messages=messages)).encode()
    with pytest.raises(openai.BadRequestError, match=said) as told:
        client.post(
            "/chat/completions",
            content=body,  # the client's own JSON has no half letters
            cast_to=object,
            options={"headers": {"content-type": "application/json"}},
        )
    assert told.value.type == "invalid_request_error"
    assert len(told.value.message) < 600


BAD_FIELDS = {
    "temprature": (1, "did you mean 'temperature'"),
    "temperature": (-1, "temperature: must be greater than or equal to 0, got -1"),
    "top_p": (0, "top_p: must be greater than 0"),
    "max_tokens": (0, "max_tokens: must be greater than or equal to 1"),
    "max_completion_tokens": (9999, "at most 1,500 tokens, got 9,999"),
    "seed": ("one", "seed: must be a valid integer"),
    "stop": (["a"] * 5, "stop must be at most 4 words"),
    "messages": ("hi", "messages: must be a valid list"),
    "n": (2, "n must be left out, got 2: there is one answer a request"),
    "tools": ([{"type": "function"}], "tools must be left out"),
    "response_format": ({"type": "json_object"}, "answers are plain text"),
    "logprobs": (True, "ask /v1/systemone for probabilities"),
    "presence_penalty": (0.5, "presence_penalty must be left out"),
    "pathweave": ({"blnd": True}, "did you mean 'blind'"),
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_bad_field_is_refused_with_the_remedy(client, field):
    value, said = BAD_FIELDS[field]
    with pytest.raises(openai.BadRequestError, match=said):
        ask(client, [TEXT], **{"max_tokens": None, "extra_body": {field: value}})


def test_what_changes_nothing_is_accepted(client):
    neutral = {"tools": [], "n": 1, "response_format": {"type": "text"}, "logprobs": False}
    harmless = {"user": "me", "metadata": {"a": "b"}, "store": True, "presence_penalty": 0}
    more = {"seed": None, "tool_choice": "none", "parallel_tool_calls": True}
    made = ask(client, [TEXT], 3, extra_body={**neutral, **harmless, **more})
    assert made == ask(client, [TEXT], 3).model_copy(
        update={"id": made.id, "created": made.created}
    )


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "said"),
    [
        ("POST", "chat/completions", {"content": b"{"}, 400, "the body must be JSON"),
        ("POST", "chat/completions", {"content": b"[" * 100_000}, 400, "the body must be JSON"),
        ("POST", "chat/completions", {"content": b"[]"}, 400, "must be a JSON object, got list"),
        ("POST", "chat/completions", {"content": b"\xff\xfe{"}, 400, "the body must be JSON"),
        ("POST", "chat/completions", {"data": {"a": "b"}}, 415, "content-type must be application"),
        ("POST", "chat/completions", {"json": bad(model="tny")}, 404, "did you mean 'tiny'"),
        ("POST", "chat/completions", {"json": bad(temperature=1e999)}, 400, "temperature"),
        ("GET", "chat/completions", {}, 405, "Method Not Allowed; see docs/serve.md"),
        ("POST", "embeddings", {"json": {}}, 404, "Not Found; see docs/serve.md"),
        ("POST", "responses", {"json": {"input": []}}, 400, "must have 1 to 20 messages"),
        (
            "POST",
            "responses",
            {"json": {"input": "a", "previous_response_id": "r"}},
            400,
            "no answ",
        ),
        ("POST", "systemone", {"json": {"state": "a", "questions": {}}}, 400, "questions: "),
        (
            "POST",
            "systemone",
            {"json": {"state": "a", "questions": {"q": {"type": "choise", "criteria": {}}}}},
            400,
            "questions.q: must|questions.q: Input tag",
        ),
    ],
)
def test_a_bad_request_is_told_in_the_shape_of_openai(address, method, path, options, status, said):
    if "content" in options:
        options = {**options, "headers": {"content-type": "application/json"}}
    if "1e999" in str(options) or "inf" in str(options.get("json", "")):
        body = json.dumps(options.pop("json"))  # httpx writes no infinity
        options |= {"content": body, "headers": {"content-type": "application/json"}}
    made = httpx.request(method, f"{address}/v1/{path}", timeout=30, **options)
    assert made.status_code == status, made.text
    error = made.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert re.search(said, error["message"]), error["message"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=5), LEAVES)
URLS = st.sampled_from(
    [
        "data:,",
        "data:image/png;base64,aaaa",
        "http://a/",
        "",
        "data:;modality=tilt,a",
        "data:x;y=,b",
    ]
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "input_image", "x_url"])},
    optional={
        "text": st.text(max_size=3) | JSON,
        "image_url": st.fixed_dictionaries({"url": URLS | JSON}) | URLS | JSON,
        "input_audio": st.fixed_dictionaries({"data": URLS}) | JSON,
        "file": st.fixed_dictionaries({"file_data": URLS}, optional={"filename": JSON}) | JSON,
    },
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "developer"]) | JSON},
        optional={"content": st.text(max_size=3) | st.lists(PARTS | JSON, max_size=3) | JSON},
    )
    | JSON,
    max_size=3,
)
QUESTIONS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["choice", "noul", "score"]) | JSON,
        "criteria": JSON,
        "instructions": JSON,
    }
)
BODIES = st.fixed_dictionaries(
    {
        "messages": MESSAGES | JSON,
        "input": MESSAGES | JSON,
        "state": st.lists(PARTS, max_size=3) | JSON,
        "questions": st.dictionaries(st.text(max_size=2), QUESTIONS, max_size=2),
    },
    optional={field: JSON for field in ("model", "temperature", "stop", "stream", "n", "tools")},
)
OWN = {
    ChatRequest: {"messages"},
    ResponsesRequest: {"input"},
    TypedRequest: {"state", "questions"},
}


@pytest.mark.parametrize("schema", [ChatRequest, ResponsesRequest, TypedRequest])
@given(body=BODIES)
@settings(max_examples=50)
def test_malformed_requests_are_refused_and_never_crash(schema, body):
    others = set().union(*OWN.values()) - OWN[schema]
    body = {field: value for field, value in body.items() if field not in others}
    try:
        request = read_request(schema, json.dumps(body).encode())
        if isinstance(request, TypedRequest):
            for name in request.questions:
                assert request.content(name, READS) is not None
            return
        assert request.asked(100).max_tokens <= 100
        turns = turns_of(request.messages, READS, 20, 20)
    except PathWeaveError as error:
        status, told = refusal(error)
        assert 400 <= status < 500
        json.dumps(told, ensure_ascii=False).encode()
    else:
        assert turns[-1]["role"] == "user"


@given(body=st.binary(max_size=40) | BODIES.map(lambda body: json.dumps(body).encode()))
@settings(max_examples=12)
def test_the_server_answers_whatever_it_is_sent(address, body):
    made = httpx.post(
        f"{address}/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json"},
        timeout=30,
    )
    assert made.status_code < 500, made.text
    assert made.status_code == 200 or made.json()["error"]["message"]
