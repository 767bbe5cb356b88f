import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.manifest import Manifest
from pathweave.datasets import convert as conversion
from pathweave.datasets.convert import problems_file
from pathweave.errors import ManifestError, RecipeError
from tests.datasets.files import medium, write


def convert(root, name, content, form="sharegpt", **options):
    source = write(root, name, content)
    for file in ("a.png", "b.png", "sub/c.png"):
        write(root, f"media/{file}", medium(".png"))
    out = root / "out" / "a.jsonl"
    coverage, _ = conversion.convert(form, source, out, media=root / "media", **options)
    return coverage, list(Manifest(out)), out


def only_problem(root, record, **options):
    sound = {"id": "s", "messages": [{"role": "user", "content": "Hi"},
                                     {"role": "assistant", "content": "Hello"}]}  # fmt: skip
    coverage, _, out = convert(root, "a.json", [sound, record], **options)
    assert coverage.usable == 1
    (line,) = problems_file(out).read_text(encoding="utf-8").splitlines()
    return json.loads(line)["reason"]


def said(sample):
    return [
        (turn.role, [part.text if part.is_text else f"{part.type}: {part.path}"
                     for part in turn.content])
        for turn in sample.messages
    ]  # fmt: skip


def turns(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


LLAVA = {
    "id": "000000033471",
    "image": "a.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat colour is the bus?"},
        {"from": "gpt", "value": "White and red."},
        {"from": "human", "value": "Is it <b>big</b>?"},
        {"from": "gpt", "value": "Yes."},
    ],
}


def test_llava(tmp_path):
    coverage, found, _ = convert(tmp_path, "llava.json", [LLAVA], "llava", licence="CC-BY-4.0")
    assert (coverage.dataset, coverage.usable) == ("llava", 2)
    question = ("user", ["image: ../media/a.png", "What colour is the bus?"])
    assert said(found[0]) == [question, ("assistant", ["White and red."])]
    assert said(found[1]) == [
        question,
        ("assistant", ["White and red."]),
        ("user", ["Is it <b>big</b>?"]),
        ("assistant", ["Yes."]),
    ]
    assert [sample.id for sample in found] == ["1-1", "1-2"]
    assert {sample.object for sample in found} == {"000000033471"}
    assert (found[0].licence, found[0].source) == ("CC-BY-4.0", "llava.json")


def test_sharegpt_as_lines_with_several_media_and_a_system_text(tmp_path):
    records = [
        {
            "system": "Be brief.",
            "images": ["a.png", "b.png"],
            "audio": "sub/c.png",
            "messages": [
                {"role": "user", "content": "Compare <image> with <image>, hear <audio>."},
                {"role": "assistant", "content": "Alike."},
            ],
        },
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    ]
    lines = "\n".join(map(json.dumps, records))
    _, found, _ = convert(tmp_path, "a.jsonl", lines)
    assert said(found[0])[:2] == [
        ("system", ["Be brief."]),
        ("user", ["Compare", "image: ../media/a.png", "with", "image: ../media/b.png", ", hear",
                  "audio: ../media/sub/c.png", "."]),
    ]  # fmt: skip
    assert [sample.id for sample in found] == ["1", "2"]
    assert said(found[1])[0] == ("user", ["Hi"])


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "input_image", "image": {"path": "a.png"}},
    ],
)
def test_lists_of_parts(part, tmp_path):
    content = [{"type": "text", "text": "See: "}, part, {"type": "text", "text": "What is it?"}]
    record = {"id": 7, "source": "x.json", "messages": [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "A bus."}]}]}  # fmt: skip
    _, (sample,), _ = convert(tmp_path, "a.json", [record])
    assert said(sample)[0] == ("user", ["See: ", "image: ../media/a.png", "What is it?"])
    assert sample.answer == "A bus."


def test_one_type_for_all_media_also_without_marks(tmp_path):
    record = {"scan": ["a.png"], "messages": turns("What is it?", "A bus.")}
    _, (sample,), _ = convert(tmp_path, "a.json", [record], modality="scan")
    assert said(sample)[0] == ("user", ["scan: ../media/a.png", "What is it?"])
    _, (sample,), _ = convert(
        tmp_path,
        "a.json",
        [{**LLAVA, "conversations": LLAVA["conversations"][:2]}],
        modality="scan",
    )
    assert sample.prompt[0].type == "scan"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "a.png", "messages": turns("What?", "x")},
         "media must have a mark in the text, such as <image>, got the field 'image' and none; "
         "give --modality image"),
        ({"image": "a.png", "messages": turns("<image> and <image>?", "x")},
         "there must be a medium for every <image>, got 1 for more marks"),
        ({"image": "http://a/b.png", "messages": turns("<image>?", "x")},
         "a medium must be a file, got 'http://a/b.png'; download or unpack it"),
        ({"messages": turns([{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}],
                            "x")},
         "a medium must be a file, got 'data:image/png;base64,'"),
        ({"image": "../a.png", "messages": turns("<image>?", "x")},
         "the path of a medium must stay below the directory of media, got '../a.png'"),
        ({"image": 5, "messages": turns("<image>?", "x")},
         "a medium must be named by its path, got 5"),
        ({"text": "x"}, "a record must have a list conversations or messages, got the fields text"),
        ({"messages": [{"role": "tool", "content": "x"}]},
         "a speaker must be one of ['human', 'user', 'gpt', 'assistant', 'bot', 'chatgpt', 'bing', "
         "'bard', 'model', 'system'], got 'tool'"),
        ({"messages": ["x"]}, "a speaker must be one of"),
        ({"messages": turns("What?")},
         "a conversation must hold a question and then an answer, got neither"),
        ({"messages": turns(5, "x")}, "what is said must be text or a list of parts, got 5"),
        ({"messages": turns([5], "x")}, "a part must be an object with a type, got 5"),
        ({"messages": turns("What?", [{"type": "image", "image": "a.png"}])},
         "an assistant turn must consist of text parts"),
        ({"messages": turns("What?", "")}, "an answer must hold words, got an empty text"),
        (5, "a record must be an object with fields, got 5"),
        ({"messages": [{"from": ["human"], "value": "x"}]}, "a speaker must be one of"),
        ({"image": "a.png", "audio": "b.wav", "messages": turns("<image>\nWhat?", "x")},
         "media must have a mark in the text, such as <audio>, got the field 'audio' and none; "),
        ({"image": None, "messages": turns("<image>\nWhat?", "x")},
         "there must be a medium for every <image>, got none for more marks"),
        ({"messages": turns("<point_cloud> What?", "x")},
         "there must be a medium for every <point_cloud>, got none for more marks"),
        ({"messages": turns([{"type": "input_audio", "input_audio": {"data": "UklGRi"}}], "x")},
         "a medium must be a file, got its data; save it and name the file"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(record, reason, tmp_path):
    told = only_problem(tmp_path, record)
    assert told.startswith(reason)
    assert told.endswith("; correct the row or remove it")


@pytest.mark.parametrize("kind", ["scan", "image"])
def test_a_mark_of_the_given_type_needs_a_medium(kind, tmp_path):
    record = {"messages": turns(f"<{kind}> What?", "x")}
    told = only_problem(tmp_path, record, modality="scan")
    assert told.startswith(f"there must be a medium for every <{kind}>, got none for more marks")


def test_a_word_in_brackets_is_no_mark_unless_its_field_names_files(tmp_path):
    asked = "What do <id>, <title> and <b> mean?"
    record = {"id": "b7.html", "title": "Tags", "messages": turns(asked, "Nothing.")}
    _, (sample,), _ = convert(tmp_path, "a.json", [record])
    assert said(sample)[0] == ("user", [asked])


def test_a_field_of_a_new_kind_of_medium_is_one_with_its_mark(tmp_path):
    _, (sample,), _ = convert(
        tmp_path, "a.json", [{"smells": ["a.png"], "messages": turns("<smell>?", "Sweet.")}]
    )
    assert said(sample)[0] == ("user", ["smell: ../media/a.png", "?"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["Yes.", ""]), min_size=1, max_size=3),
                min_size=1, max_size=3))  # fmt: skip
def test_answers_are_counted_whether_they_can_be_used_or_not(records):
    records = [["Yes."], *records]
    content = [
        {"messages": turns(*(text for answer in answers for text in ("What?", answer)))}
        for answers in records
    ]
    with TemporaryDirectory() as directory:
        coverage, found, _ = convert(Path(directory), "a.json", content)
    whole = sum(len(answers) for answers in records if all(answers))
    assert (coverage.usable, coverage.annotated) == (whole, sum(map(len, records)))
    assert len(found) == whole


def test_an_answer_to_nothing_is_passed_over(tmp_path):
    said_first = [{"from": "gpt", "value": "I am here."}, {"from": "human", "value": "Hi"},
                  {"from": "chatgpt", "value": "Hello"}]  # fmt: skip
    _, (sample,), _ = convert(tmp_path, "a.json", [{"conversations": said_first}])
    assert said(sample) == [("user", ["Hi"]), ("assistant", ["Hello"])]


def test_a_directory_of_media_that_is_none_and_an_option_of_captions_alone(tmp_path):
    with pytest.raises(RecipeError, match=r"--media must be a directory, got .*no; correct"):
        conversion.convert("llava", tmp_path, tmp_path / "a.jsonl", media=tmp_path / "no")
    with pytest.raises(RecipeError, match="--every-caption must be left out for llava; remove it"):
        conversion.convert("llava", tmp_path, tmp_path / "a.jsonl", every_caption=True)


def test_a_medium_that_cannot_be_reached(tmp_path):
    convert(tmp_path, "a.json", [{"messages": turns("Hi", "Hello")}])
    (tmp_path / "media/loop").symlink_to("loop")
    told = only_problem(tmp_path, {"image": "loop/a.png", "messages": turns("<image>?", "x")})
    assert "a.png must be readable, got Too many levels of symbolic links; change" in told


def test_a_missing_medium_is_told(tmp_path):
    reason = only_problem(tmp_path, {"image": "no.png", "messages": turns("<image>?", "x")})
    assert reason == "no file ../media/no.png"


def test_ids_may_occur_twice(tmp_path):
    _, found, _ = convert(tmp_path, "a.json", [LLAVA, LLAVA], "llava")
    assert [sample.id for sample in found] == ["1-1", "1-2", "2-1", "2-2"]


def test_a_file_without_a_conversation(tmp_path):
    with pytest.raises(ManifestError, match="got no annotation at all; download"):
        convert(tmp_path, "a.json", [], "llava")
