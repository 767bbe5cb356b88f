import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.manifest import Manifest
from pathweave.data.media_store import MediaStore
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


def swift(root, record):
    _, found, out = convert(root, "a.jsonl", json.dumps(record), "ms-swift")
    return found, Manifest(out)


def swift_problem(root, record):
    return only_problem(root, record, form="ms-swift")


def test_ms_swift_takes_media_in_the_order_of_their_marks(tmp_path):
    record = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "<image>Like <audio>?"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "And <image>"},
            {"role": "assistant", "content": "Yes."},
        ],
        "images": ["a.png", {"path": "b.png", "bytes": None}],
        "audios": [str(tmp_path / "media/sub/c.png")],
        "videos": [],
        "rejected_response": "What?",
    }
    found, _ = swift(tmp_path, record)
    assert [sample.id for sample in found] == ["1-1", "1-2"]
    assert said(found[1]) == [
        ("system", ["Be brief."]),
        ("user", ["image: ../media/a.png", "Like", "audio: ../media/sub/c.png", "?"]),
        ("assistant", ["No."]),
        ("user", ["And", "image: ../media/b.png"]),
        ("assistant", ["Yes."]),
    ]


def test_media_that_stand_in_a_record_go_to_a_store_once(tmp_path):
    content = medium(".png")
    shown = {"bytes": base64.b64encode(content).decode(), "path": "gone.png"}
    record = {"images": [shown, "a.png"], "messages": turns("<image>?", "A.", "<image>?", "B.")}
    (_, last), manifest = swift(tmp_path, record)
    first, second = (turn.content[0] for turn in last.messages if turn.role == "user")
    assert (first.path, second.path) == ("a.jsonl.media.parquet#1-1", "../media/a.png")
    assert manifest.read_media(first) == content
    assert len(MediaStore(tmp_path / "out/a.jsonl.media.parquet")) == 1


def test_without_a_mark_media_of_ms_swift_stand_before_the_question(tmp_path):
    (sample,), _ = swift(tmp_path, {"images": ["a.png"], "messages": turns("What?", "x")})
    assert said(sample)[0] == ("user", ["image: ../media/a.png", "What?"])


@pytest.mark.parametrize(
    "record",
    [
        {"query": "Two?", "response": "B", "history": [["One?", "A"]], "system": "S"},
        {"conversation": [{"human": "One?", "assistant": "A"}, {"human": "Two?", "assistant": "B"}],
         "system": "S"},
        {"messages": {"role": ["system", "user", "assistant", "user", "assistant"],
                      "content": ["S", "One?", "A", "Two?", "B"]}},
    ],
)  # fmt: skip
def test_rounds_of_every_form_are_the_same_conversation(record, tmp_path):
    found, _ = swift(tmp_path, record)
    assert said(found[-1]) == [
        *(("system", ["S"]), ("user", ["One?"]), ("assistant", ["A"])),
        *(("user", ["Two?"]), ("assistant", ["B"])),
    ]


def test_an_instruction_and_its_input_are_a_question(tmp_path):
    record = {"instruction": "Translate.", "input": "Hund", "output": "dog"}
    (sample,), _ = swift(tmp_path, record)
    assert said(sample) == [("user", ["Translate.\nHund"]), ("assistant", ["dog"])]


def test_answers_that_are_not_to_be_learnt_are_no_samples(tmp_path):
    first, *rest = turns("One?", "A", "Two?", "B")
    rest[0]["loss"] = False
    good = {"messages": [first, *rest]}
    unlearnt = {"messages": [first, rest[0]]}
    bad = {"messages": turns("One?", "A"), "label": False}
    lines = "\n".join(map(json.dumps, [good, unlearnt, bad]))
    coverage, found, _ = convert(tmp_path, "a.jsonl", lines, "ms-swift")
    assert (coverage.usable, coverage.left_out) == (1, 2)
    assert [sample.answer for sample in found] == ["B"]
    assert len(found[0].messages) == 4


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"images": ["a.png"], "messages": turns("<image> and <image>?", "x")},
         "there must be a medium for every <image> and a mark for every medium, got 1 for 2 marks"),
        ({"images": ["a.png", "b.png"], "messages": turns("<image>?", "x")},
         "there must be a medium for every <image> and a mark for every medium, got 2 for 1 marks"),
        ({"messages": turns("<video>?", "x")},
         "there must be a medium for every <video> and a mark for every medium, got 0 for 1 marks"),
        ({"images": ["a.png"], "messages": turns("Draw an apple", "<image>")},
         "media must be shown by the user, got <image> said by another"),
        ({"images": ["a.png"], "objects": {"bbox": [[1, 2, 3, 4]]},
          "messages": turns("<image>Find it", "<bbox>")},
         "names and boxes must be written in the text, got <bbox>"),
        ({"images": [{"bytes": "%", "path": None}], "messages": turns("<image>?", "x")},
         "bytes of a medium must be base64 in JSON, got '%'"),
        ({"images": [{"bytes": "", "path": None}], "messages": turns("<image>?", "x")},
         "bytes of a medium must hold a file, got b''"),
        ({"images": [None], "messages": turns("<image>?", "x")},
         "a medium must be named by its path, got None"),
        ({"images": ["/etc/passwd.png"], "messages": turns("<image>?", "x")},
         "the path of a medium must stay below the directory of media, got '/etc/passwd.png'"),
        ({"messages": [*turns("x"), {"role": "tool_call", "content": "{}"}]},
         "a speaker must be one of"),
        ({"query": "x", "response": "y", "history": ["z"]}, "history must be a list of pairs"),
    ],
)  # fmt: skip
def test_what_ms_swift_allows_and_a_manifest_does_not_is_told(record, reason, tmp_path):
    told = swift_problem(tmp_path, record)
    assert told.startswith(reason)
    assert told.endswith("; correct the row or remove it")


def test_bytes_of_a_medium_have_no_place_in_sharegpt(tmp_path):
    part = {"type": "image", "image": {"bytes": "aaaa"}}
    told = only_problem(tmp_path, {"messages": turns([part], "x")})
    assert told.startswith("a medium must be a file, got its bytes; save it and name it")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["image", "audio", "word"]), max_size=6),
       st.integers(0, 3), st.integers(0, 3))  # fmt: skip
def test_a_record_of_ms_swift_is_usable_if_marks_and_media_agree(pieces, num_images, num_audios):
    asked = " ".join("word" if piece == "word" else f"<{piece}>" for piece in ["word", *pieces])
    record = {"images": ["a.png", "b.png", "sub/c.png"][:num_images],
              "audios": ["a.png", "b.png", "sub/c.png"][:num_audios],
              "messages": turns(asked, "x")}  # fmt: skip
    lines = "\n".join(map(json.dumps, [{"messages": turns("Hi", "Hello")}, record]))
    with TemporaryDirectory() as directory:
        coverage, found, _ = convert(Path(directory), "a.jsonl", lines, "ms-swift")
    agree = all(
        pieces.count(kind) in (0, number)
        for kind, number in (("image", num_images), ("audio", num_audios))
    )
    assert (coverage.usable, coverage.broken) == (1 + agree, 1 - agree)
    if agree:
        kinds = [part.type for part in found[1].prompt if not part.is_text]
        marked = [piece for piece in pieces if piece != "word"]
        assert sorted(kinds) == sorted(["image"] * num_images + ["audio"] * num_audios)
        assert [kind for kind in kinds if kind in marked] == marked


def test_an_answer_about_a_tag_is_text_where_there_is_no_medium_of_its_kind(tmp_path):
    record = {"images": ["a.png"], "messages": turns("<image> How?", "With <video> and </video>.")}
    (sample,), _ = swift(tmp_path, record)
    assert sample.answer == "With <video> and </video>."


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2)
    | st.sampled_from(["", "a.png", "user", "assistant", "text", "image", "<image>", "<bbox>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "type", "image", "text", "bytes", "path", "user"]),
        inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
FIELDS = ["messages", "conversation", "texts", "images", "audio", "system", "objects", "label",
          "query", "response", "history", "instruction", "input", "output", "id"]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5), max_size=8),
       st.sampled_from(["ms-swift", "sharegpt"]))  # fmt: skip
def test_whatever_a_record_holds_the_others_are_kept(records, form):
    sound = {"messages": turns("<image>Hi", "Hello"), "images": ["a.png"]}
    lines = "\n".join(map(json.dumps, [sound, *records, sound]))
    with TemporaryDirectory() as directory:
        coverage, found, _ = convert(Path(directory), "a.jsonl", lines, form)
    assert [said(sample) for sample in (found[0], found[-1])] == [said(found[0])] * 2
    assert coverage.annotated + coverage.left_out >= len(records) + 2
