import json

import pytest

from pathweave.data.messages import Part, Sample, parse_question, parse_sample
from pathweave.errors import ManifestError, RequestError

QUESTION = {"role": "user", "content": [{"type": "see", "path": "a.png"}, "What is it?"]}
QUESTION["content"][1] = {"type": "text", "text": "What is it?"}
ANSWER = {"role": "assistant", "content": "a shirt"}


def row(*messages, **fields):
    return {"id": "s1", "messages": list(messages or (QUESTION, ANSWER)), **fields}


def test_prompt_and_answer():
    sample = parse_sample(row(references=["a shirt", "a blouse"], object="o1"), "here")
    assert sample.prompt == [Part(type="see", path="a.png"), Part(type="text", text="What is it?")]
    assert sample.answer == "a shirt"
    assert sample.references == ("a shirt", "a blouse")
    assert sample.choices == ()
    assert sample.object == "o1"


def test_several_turns():
    more = {"role": "user", "content": "And its colour?"}
    sample = parse_sample(row(QUESTION, ANSWER, more, {"role": "assistant", "content": "red"}), "x")
    assert [part.text for part in sample.prompt] == [
        *(None, "What is it?", "a shirt", "And its colour?")
    ]
    assert sample.answer == "red"


def test_questions_without_an_answer():
    sample = parse_sample(row(QUESTION), "here")
    assert len(sample.prompt) == 2
    with pytest.raises(ManifestError, match=r"sample 's1' must have an assistant turn to learn"):
        _ = sample.answer


def test_absent_fields_may_be_null():
    sample = parse_sample(row(references=None, choices=None, source=None), "here")
    assert sample.references == ()


def test_other_fields_are_left_out():
    assert parse_sample(row(colour="red", split="train"), "here") == parse_sample(row(), "here")


def turn(content, role="user"):
    return row({"role": role, "content": content})


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"messages": [QUESTION]}, r"id: Field required"),
        ({"id": "a"}, r"messages: Field required"),
        ({"id": 7, "messages": [QUESTION]}, r"id: must be a valid string, got 7"),
        ({"id": "a", "messages": []}, r"messages: Tuple should have at least 1 item .*, got \[\]"),
        ({"id": "a", "messages": "hello"}, r"messages: must be a valid tuple, got 'hello'"),
        (row(ANSWER), r"messages must have a user turn"),
        (turn([{"path": "a.png"}]), r"messages\.0\.content\.0\.type: Field required"),
        (turn([{"type": 3, "path": "a"}]), r"content\.0\.type: must be a valid string, got 3"),
        (turn([{"type": "see"}]), r"a part of type 'see' must have 'path' and no 'text'"),
        (turn([{"type": "text"}]), r"a part of type 'text' must have 'text' and no 'path'"),
        (turn([{"type": "see", "path": "a", "text": "b"}]), r"must have 'path' and no 'text'"),
        (
            turn([{"type": "see", "path": ""}]),
            r"path: String should have at least 1 character, got ''",
        ),
        (
            turn([{"type": "see", "url": "a"}]),
            r"field messages\.0\.content\.0\.url must be one of \['companion', 'path', ",
        ),
        (turn([]), r"content: Tuple should have at least 1 item .*, got \[\]"),
        (turn("hello", role="bot"), r"role: must be 'system', 'user' or 'assistant', got 'bot'"),
        (
            row(QUESTION, {"role": "assistant", "content": [{"type": "see", "path": "a"}]}),
            r"messages\.1: an assistant turn must consist of text parts",
        ),
        (
            row(refrences=["a"]),
            r"a field must be one of .*, got 'refrences'; did you mean 'references'\?",
        ),
        (row(references="a"), r"references: must be a valid tuple, got 'a'"),
    ],
)
def test_broken_rows(broken, reason):
    with pytest.raises(ManifestError, match=rf"^file, line 3: .*{reason}") as caught:
        parse_sample(broken, "file, line 3")
    assert "\n" not in str(caught.value)


def test_samples_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Sample.model_validate(row()).id = "other"


def test_a_medium_may_have_a_companion():
    pair = {"type": "see", "path": "a.png", "companion": "a.jpg"}
    sample = parse_sample(turn([pair, {"type": "text", "text": "What is it?"}]), "here")
    assert sample.prompt[0].companion == "a.jpg"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (
            {"type": "see", "path": "a.png", "companion": ""},
            "companion: String should have at least 1 character, got ''",
        ),
        ({"type": "text", "text": "a", "companion": "b"}, "must have no 'companion'"),
    ],
)
def test_broken_companions(part, reason):
    with pytest.raises(ManifestError, match=reason):
        parse_sample(turn([part]), "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [],
            r"question 2: content: Tuple should have at least 1 .*, got \[\]; correct the part",
        ),
        (["How?"], r"question 2: content\.0: must be .*got 'How\?'"),
        ([{"text": "How?"}], r"question 2: content\.0\.type: Field required"),
        ([{"type": "sight"}], r"question 2: content\.0: a part of type 'sight' must have 'path'"),
        (
            [{"type": "text", "text": "How?", "txt": "x"}],
            r"content\.0\.txt must be one of .*, got 'txt'; did you mean 'text'",
        ),
    ],
)
def test_a_malformed_question_is_refused(content, message):
    with pytest.raises(RequestError, match=message):
        parse_question(content, "question 2")


HALVES = ["half \ud83d", "caf\udce9", "\ude00"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "broken",
    [
        lambda half: turn(half),
        lambda half: turn([{"type": "text", "text": half}]),
        lambda half: row(QUESTION, {"role": "assistant", "content": half}),
        lambda half: turn([{"type": "see", "path": half}]),
        lambda half: turn([{"type": "see", "path": "a.png", "companion": half}]),
        lambda half: row(references=["sound", half]),
        lambda half: row(choices=[half]),
        *(lambda half, name=name: row(**{name: half})
          for name in ("id", "object", "source", "licence", "attribution")),
    ],
)  # fmt: skip
def test_half_a_character_is_refused_wherever_it_stands(broken, half):
    with pytest.raises(ManifestError, match=r"^line 7: .*(UTF-8, got half|as a unicode str)") as e:
        parse_sample(broken(half), "line 7")
    str(e.value).encode()


def test_half_a_character_in_a_question_that_is_asked_is_refused():
    with pytest.raises(RequestError, match=r"question 1: .*must be UTF-8, got half a character in"):
        parse_question("What is this \ud83d?", "question 1")


def test_a_whole_character_of_two_halves_stays():
    text = json.loads('"\\ud83d\\ude00"')
    assert parse_sample(turn(text), "here").prompt[0].text == "\U0001f600"
