"""Directories of Hugging Face ``datasets``: written here in their layout, and by the package."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.manifest import Manifest
from pathweave.datasets.convert import convert, problems_file
from pathweave.datasets.saved_datasets import find_saved
from pathweave.errors import ManifestError, RecipeError
from tests.datasets.files import medium

PNG, WAV = medium(".png"), medium(".wav")
MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}
LABELLED = {"image": {"_type": "Image"}, "label": CLASSES}
ROWS = [{"image": {"bytes": PNG, "path": "a.png"}, "label": 0},
        {"image": {"bytes": PNG + b"2", "path": None}, "label": 1}]  # fmt: skip
SCHEMA = pa.schema([("image", MEDIUM), ("label", pa.int64())])


def described(schema, features):
    told = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": told} if features else None)


def save(directory, rows=ROWS, schema=SCHEMA, features=LABELLED, shards=1):
    """Write a split as ``Dataset.save_to_disk`` does."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    for n, file in enumerate(files):
        table = pa.Table.from_pylist(rows[n::shards], schema=described(schema, features))
        with pa.OSFile(str(directory / file), "wb") as sink, \
             pa.ipc.new_stream(sink, table.schema) as stream:  # fmt: skip
            stream.write_table(table)
    state = {"_data_files": [{"filename": file} for file in files], "_split": None}
    (directory / "state.json").write_text(json.dumps(state), encoding="utf-8")
    info = {"features": features, "license": ""}
    (directory / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return directory


def save_parquet(file, rows=ROWS, schema=SCHEMA, features=LABELLED):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=described(schema, features)), file)
    return file


def converted(source, root, **options):
    out = root / "out" / "a.jsonl"
    coverage, _ = convert("huggingface", source, out, **options)
    manifest = Manifest(out)
    shown = [
        ([part.type if not part.is_text else part.text for part in sample.prompt], sample.answer)
        for sample in manifest
    ]
    media = [manifest.read_media(part) for sample in manifest for part in sample.prompt
             if not part.is_text]  # fmt: skip
    return coverage, shown, media


def problems(root):
    lines = problems_file(root / "out/a.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["reason"] for line in lines]


def test_classes_of_a_saved_directory_become_their_names_and_media_go_to_a_store(tmp_path):
    coverage, shown, media = converted(save(tmp_path / "data", shards=2), tmp_path)
    assert str(coverage) == "2 of 2"
    assert shown == [(["image", "What is it?"], "cat"), (["image", "What is it?"], "dog")]
    assert media == [PNG, PNG + b"2"]


def test_a_split_of_a_dictionary_is_named(tmp_path):
    for n, name in enumerate(("train", "test")):
        save(tmp_path / "data" / name, ROWS[n:])
    (tmp_path / "data/dataset_dict.json").write_text('{"splits": ["train", "test"]}',
                                                     encoding="utf-8")  # fmt: skip
    coverage, shown, _ = converted(tmp_path / "data", tmp_path, split="test", question="Which?")
    assert (coverage.split, shown) == ("test", [(["image", "Which?"], "dog")])
    with pytest.raises(RecipeError, match=r"--split must be one of \['train', 'test'\], got none"):
        converted(tmp_path / "data", tmp_path)
    with pytest.raises(RecipeError, match="got 'tain'; did you mean 'train'"):
        converted(tmp_path / "data", tmp_path, split="tain")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"],
         {"train": 2, "test": 1}),
        (["default/train/0000", "default/train/0001", "default/test/0000"],
         {"train": 2, "test": 1}),
        (["en/train-00000-of-00001", "de/train-00000-of-00001"], {"en/train": 1, "de/train": 1}),
        (["train", "validation"], {"train": 1, "validation": 1}),
        (["0000", "0001", ".cache/x", "a.jsonl.media"], {"": 2}),
        (["data/train-00000-of-00001-a1b2c3"], {"train": 1}),
    ],
)  # fmt: skip
def test_parquet_files_are_sorted_into_splits_by_their_names(names, splits, tmp_path):
    for name in names:
        save_parquet(tmp_path / f"{name}.parquet")
    for split, count in splits.items():
        assert len(find_saved(tmp_path, split or None).files) == count
    if len(splits) > 1:
        with pytest.raises(RecipeError, match="got none; name one"):
            find_saved(tmp_path, None)


def test_one_parquet_file_without_a_description_is_told_by_its_columns(tmp_path):
    schema = pa.schema([("images", pa.list_(MEDIUM)), ("caption", pa.string())])
    rows = [{"images": [{"bytes": PNG, "path": None}] * 2, "caption": " Two. "}]
    file = save_parquet(tmp_path / "x.parquet", rows, schema, None)
    _, shown, media = converted(file, tmp_path)
    assert (shown, media) == ([(["image", "image", "What is it?"], "Two.")], [PNG, PNG])


def test_questions_of_rows_and_several_answers(tmp_path):
    schema = pa.schema([("sound", MEDIUM), ("question", pa.string()),
                        ("answers", pa.list_(pa.string()))])  # fmt: skip
    rows = [{"sound": {"bytes": WAV, "path": None}, "question": "How?", "answers": ["Low", "Deep"]}]
    features = {"sound": {"sampling_rate": 8000, "_type": "Audio"}}
    source = save(tmp_path / "data", rows, schema, features)
    _, shown, _ = converted(source, tmp_path)
    assert shown == [(["audio", "How?"], "Low")]
    assert Manifest(tmp_path / "out/a.jsonl")[0].references == ("Low", "Deep")
    _, shown, _ = converted(source, tmp_path, modality="hum", question="What?")
    assert shown == [(["hum", "What?"], "Low")]


def conversation(content="<image> What?", answer="A cat.", media=PNG):
    return {"messages": [{"role": "user", "content": content},
                         {"role": "assistant", "content": answer}],
            "images": [{"bytes": media, "path": "a.png"}] if media else []}  # fmt: skip


SAID = pa.schema(
    [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
     ("images", pa.list_(MEDIUM))]
)  # fmt: skip
SAID_FEATURES = {"images": {"feature": {"_type": "Image"}, "_type": "List"}}


def test_conversations_with_a_column_of_media(tmp_path):
    rows = [conversation(), conversation("Hi", "Hello", None), conversation("What?", "A dog.")]
    source = save(tmp_path / "data", rows, SAID, SAID_FEATURES)
    _, shown, media = converted(source, tmp_path)
    assert shown == [(["image", "What?"], "A cat."), (["Hi"], "Hello"),
                     (["image", "What?"], "A dog.")]  # fmt: skip
    assert media == [PNG, PNG]


def test_conversations_may_name_their_media_by_paths(tmp_path):
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    schema = pa.schema([("conversations", pa.list_(turn)), ("image", pa.string())])
    said = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cat."}]
    rows = [{"conversations": said, "image": name} for name in ("a.png", "no.png", None)]
    source = save(tmp_path / "data", rows, schema, None)
    (source / "a.png").write_bytes(PNG)
    coverage, shown, media = converted(source, tmp_path)
    assert (coverage.usable, coverage.missing, coverage.broken) == (1, 1, 1)
    assert (shown, media) == ([(["image", "What?"], "A cat.")], [PNG])
    assert not (tmp_path / "out/a.jsonl.media.parquet").exists()


def test_parts_without_a_file_take_the_media_beside_them(tmp_path):
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    turn = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    schema = pa.schema([("messages", pa.list_(turn)), ("images", pa.list_(MEDIUM))])
    texts = [{"type": "text", "text": "This"}, {"type": "image", "text": None},
             {"type": "text", "text": "is?"}]  # fmt: skip
    row = conversation(texts, [{"type": "text", "text": "A cat."}])
    source = save(tmp_path / "data", [row], schema, SAID_FEATURES)
    _, shown, media = converted(source, tmp_path)
    assert (shown, media) == ([(["This", "image", "is?"], "A cat.")], [PNG])


def test_pairs_of_texts_are_conversations(tmp_path):
    pair = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    schema = pa.schema([("images", pa.list_(MEDIUM)), ("texts", pa.list_(pair))])
    texts = [{"user": "What?", "assistant": "A cat."}, {"user": "Big?", "assistant": "No."}]
    rows = [{"images": [{"bytes": PNG, "path": None}], "texts": texts}]
    _, shown, _ = converted(save(tmp_path / "data", rows, schema, SAID_FEATURES), tmp_path)
    assert shown == [(["image", "What?"], "A cat."),
                     (["image", "What?", "A cat.", "Big?"], "No.")]  # fmt: skip


def test_a_broken_row_is_told_and_the_others_are_kept(tmp_path):
    rows = [*ROWS, {"image": ROWS[0]["image"], "label": -1}, {"image": None, "label": 0},
            {"image": {"bytes": None, "path": "no.png"}, "label": 0},
            {"image": {"bytes": b"", "path": None}, "label": 0},
            {"image": ROWS[0]["image"], "label": None}]  # fmt: skip
    coverage, shown, _ = converted(save(tmp_path / "data", rows), tmp_path)
    assert (coverage.usable, coverage.broken, coverage.missing) == (2, 4, 1)
    assert len(shown) == 2
    assert [reason.split("; ")[0] for reason in problems(tmp_path)] == [
        "'label' must be one of 2 classes, got -1",
        "a row must show a medium, got none in image",
        "no file ../data/no.png",
        "bytes of a medium must hold a file, got b''",
        "'label' must be one of 2 classes, got None",
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2, None]), st.booleans()), max_size=6))
def test_every_row_is_counted_and_those_that_are_sound_are_kept(drawn):
    drawn = [(0, True), *drawn]
    rows = [{"image": ROWS[0]["image"] if there else None, "label": label}
            for label, there in drawn]  # fmt: skip
    sound = [label for label, there in drawn if there and label in (0, 1)]
    with TemporaryDirectory() as directory:
        root = Path(directory)
        coverage, shown, media = converted(save(root / "data", rows, shards=1), root)
    assert (coverage.usable, coverage.annotated) == (len(sound), len(drawn))
    assert [answer for _, answer in shown] == [CLASSES["names"][label] for label in sound]
    assert media == [PNG] * len(sound)


def test_text_that_is_not_utf_8_costs_its_row(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff!"]).buffers()[1:]])
    media = pa.array([ROWS[0]["image"]] * 2, MEDIUM)
    pq.write_table(pa.table({"image": media, "caption": bad}), tmp_path / "a.parquet")
    coverage, shown, _ = converted(tmp_path / "a.parquet", tmp_path)
    assert (coverage.broken, shown) == (1, [(["image", "What is it?"], "ok")])
    assert problems(tmp_path)[0].startswith("text must be UTF-8, got 'utf-8' codec")


def saved_with(root, name, text):
    (save(root / "data") / name).write_text(text, encoding="utf-8")


def cut(root, name):
    file = root / "data" / name
    file.write_bytes(file.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda root: None, {}, "must be a directory saved by datasets, or hold Parquet files"),
        (lambda root: saved_with(root, "state.json", "{"), {}, "state.json must be a JSON object"),
        (lambda root: saved_with(root, "state.json", "[]"), {}, "must be a JSON object, got []"),
        (lambda root: saved_with(root, "state.json", "{}"), {}, "must name its Arrow files, got N"),
        (lambda root: saved_with(root, "state.json", '{"_data_files": [{"filename": "b.arrow"}]}'),
         {}, "b.arrow must be a whole Arrow or Parquet file, got"),
        (lambda root: saved_with(root, "state.json", '{"_indices_data_files": [{}]}'), {},
         "got a list of indices beside them; save it again after flatten_indices()"),
        (lambda root: saved_with(root, "data-00000-of-00001.arrow", ""), {}, "must be a whole Arr"),
        (lambda root: (save(root / "data"), cut(root, "data-00000-of-00001.arrow")), {},
         "data-00000-of-00001.arrow must be a whole Arrow or Parquet file, got"),
        (lambda root: (save_parquet(root / "data/a.parquet"), cut(root, "a.parquet")), {},
         "a.parquet must be a whole Arrow or Parquet file, got"),
        (lambda root: save(root / "data"), {"label": "labl"}, "got 'labl'; did you mean 'label'"),
        (lambda root: save(root / "data", features={"image": {"_type": "Image"}}), {},
         "--label must name the column of answers, got none and none that may be it among image"),
        (lambda root: save(root / "data", features=None), {"label": "label"},
         "--label must name a column of texts or of classes with names, got 'label' of int64"),
        (lambda root: save(root / "data", schema=pa.schema([("label", pa.int64())])), {},
         "must have a column of media (structures of bytes and a path) or one of conversations"),
        (lambda root: save(root / "data", [], SCHEMA), {}, "got no annotation at all"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_at_all_is_told_and_nothing_is_written(make, options, said, tmp_path):
    make(tmp_path)
    with pytest.raises((ManifestError, RecipeError)) as caught:
        converted(tmp_path / "data", tmp_path, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [*(tmp_path / "out").glob("*")] == []


def test_what_is_read_is_not_replaced_by_the_store(tmp_path):
    file = save_parquet(tmp_path / "out/a.jsonl.media.parquet")
    before = file.read_bytes()
    with pytest.raises(ManifestError, match="--out must not take the place of what is read"):
        converted(file, tmp_path)
    assert file.read_bytes() == before


def test_the_package_itself_writes_what_is_read_here(tmp_path):
    hub = pytest.importorskip("datasets")
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["cat", "dog"])})
    columns = {name: [row[name] for row in ROWS] for name in SCHEMA.names}
    made = hub.Dataset.from_dict(columns, features=features)
    hub.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(tmp_path / "dict")
    made.save_to_disk(tmp_path / "one", num_shards=2)
    made.to_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet")
    whole = [(["image", "What is it?"], "cat"), (["image", "What is it?"], "dog")]
    for name, split, expected in (
        *(("one", None, whole), ("hub", "train", whole), ("dict", "train", whole)),
        ("dict", "test", whole[1:]),
    ):
        _, shown, media = converted(tmp_path / name, tmp_path, split=split)
        assert (shown, len(media)) == (expected, len(expected))
    said = {"messages": [[{"role": "user", "content": "<image>What?"},
                          {"role": "assistant", "content": "x"}]],
            "images": [[ROWS[0]["image"]]]}  # fmt: skip
    talk = [{"role": hub.Value("string"), "content": hub.Value("string")}]
    features = hub.Features({"messages": talk, "images": [hub.Image()]})
    hub.Dataset.from_dict(said, features=features).save_to_disk(tmp_path / "talk")
    _, shown, media = converted(tmp_path / "talk", tmp_path)
    assert (shown, media) == ([(["image", "What?"], "x")], [PNG])
