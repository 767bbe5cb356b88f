import json
import pickle
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pathweave.data.decode.pair import unpack_pair
from pathweave.data.manifest import Manifest, write_manifest
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Part
from pathweave.errors import ManifestError, MediaError


def row(i: int, **fields):
    parts = [{"type": "see", "path": f"{i}.png"}, {"type": "text", "text": "What is it?"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": f"thing {i}"},
    ]
    return {"id": f"s{i}", "messages": messages, **fields}


def lines(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_round_trip(tmp_path, suffix):
    rows = [row(0, references=["a", "b"]), row(1, choices=["c"], object="o", licence="CC0-1.0")]
    write_manifest(tmp_path / f"m{suffix}", rows)
    manifest = Manifest(tmp_path / f"m{suffix}")
    assert len(manifest) == 2
    assert manifest[0].references == ("a", "b")
    assert manifest[1].choices == ("c",)
    assert manifest[-1].object == "o"
    assert [sample.answer for sample in manifest] == ["thing 0", "thing 1"]
    assert manifest.part_types == {"see"}
    assert manifest.check() == []
    write_manifest(tmp_path / f"again{suffix}", manifest)
    assert list(Manifest(tmp_path / f"again{suffix}")) == list(manifest)
    assert list(pickle.loads(pickle.dumps(manifest))) == list(manifest)


def pair(path="map.npy", companion="colours.jpg"):
    part = {"type": "see", "path": path, "companion": companion}
    return {"id": "p", "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_pair_is_read_as_one_archive(tmp_path, suffix):
    (tmp_path / "map.npy").write_bytes(b"distances")
    write_media_store(tmp_path / "media.parquet", [{"key": "c", "bytes": b"colours"}])
    pairs = pair(companion="media.parquet#c")
    write_manifest(tmp_path / f"m{suffix}", [pairs, row(1)])
    manifest = Manifest(tmp_path / f"m{suffix}")
    assert unpack_pair(manifest.read_media(manifest[0].prompt[0]), "p") == (
        *(b"colours", b"distances"),
    )
    assert manifest[1].prompt[0].companion is None


def test_a_companion_must_exist(tmp_path):
    (tmp_path / "map.npy").write_bytes(b"distances")
    write_manifest(tmp_path / "m.jsonl", [pair()])
    manifest = Manifest(tmp_path / "m.jsonl")
    with pytest.raises(MediaError, match=r"^colours\.jpg in .*m\.jsonl must be a file beside"):
        manifest.read_media(manifest[0].prompt[0])


def test_tables_without_pairs_have_the_columns_they_always_had(tmp_path):
    write_manifest(tmp_path / "m.parquet", [row(0)])
    assert "companion" not in str(pq.read_schema(tmp_path / "m.parquet"))


def test_messages_as_json_strings(tmp_path):
    table = pa.table({"id": ["a"], "messages": [json.dumps(row(0)["messages"])]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert Manifest(tmp_path / "m.parquet")[0].prompt[0] == Part(type="see", path="0.png")


def test_broken_json_string_in_parquet(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "messages": ["[{"]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"m\.parquet, row 1: messages must be a JSON list"):
        Manifest(tmp_path / "m.parquet")[0]


def test_index_out_of_range(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [row(0)])
    with pytest.raises(IndexError, match="index must be below 1 samples, got 1"):
        Manifest(tmp_path / "m.jsonl")[1]


def test_blank_lines_windows_ends_and_marks(tmp_path):
    path = tmp_path / "m.jsonl"
    text = "\ufeff" + json.dumps(row(0)) + "\r\n\r\n" + json.dumps(row(1))
    path.write_bytes(text.encode())
    assert [sample.id for sample in Manifest(path)] == ["s0", "s1"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('{"id": "s1", ', "one JSON object in UTF-8, got .*Expecting property name"),
        ("[1, 2]", r"one JSON object, got '\[1, 2\]'"),
        ('{"id": "s1"}', "messages must be given"),
    ],
)
def test_broken_line(tmp_path, broken, reason):
    path = lines(tmp_path / "m.jsonl", row(0), "", broken, row(3))
    manifest = Manifest(path)
    assert manifest[2].id == "s3"
    with pytest.raises(ManifestError, match=rf"m\.jsonl, line 3: .*{reason}"):
        manifest[1]
    with pytest.raises(ManifestError, match=r"m\.jsonl, line 3: "):
        _ = manifest.part_types
    assert len(manifest.check()) == 1


def test_line_that_is_not_utf8(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(ManifestError, match=r"line 1: a line must be one JSON object in UTF-8"):
        Manifest(path)[0]


def test_collecting_problems(tmp_path):
    path = lines(tmp_path / "m.jsonl", row(0), "{", row(2), '{"id": "a"}')
    manifest = Manifest(path, on_error="collect")
    assert [sample.id for sample in manifest] == ["s0", "s2"]
    assert manifest.part_types == {"see"}
    assert [problem.split(": ")[0][-6:] for problem in manifest.problems] == ["line 2", "line 4"]


def test_nothing_but_problems(tmp_path):
    with pytest.raises(ManifestError, match="at least one sound row, got 2 broken ones; the first"):
        Manifest(lines(tmp_path / "m.jsonl", "{", "{"), on_error="collect")


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
def test_empty_file(tmp_path, content):
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(ManifestError, match="must have at least one row, got none"):
        Manifest(tmp_path / "m.jsonl")


def test_missing_file(tmp_path):
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(ManifestError, match=r"m\.jsonl must exist, .* \['train\.jsonl'\]"):
        Manifest(tmp_path / "m.jsonl")


def test_other_format(tmp_path):
    with pytest.raises(ManifestError, match=r"must be a \.jsonl or \.parquet file, got m\.csv"):
        Manifest(tmp_path / "m.csv")


def test_missing_column(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"columns id, messages, got id, text; add messages"):
        Manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_truncated_parquet(tmp_path, keep):
    write_manifest(tmp_path / "m.parquet", [row(0)])
    path = tmp_path / "m.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ManifestError, match=r"m\.parquet must be a whole Parquet file, got"):
        Manifest(path)


def test_damaged_parquet(tmp_path):
    path = tmp_path / "m.parquet"
    write_manifest(path, [row(i) for i in range(50)])
    data = bytearray(path.read_bytes())
    data[30:300] = bytes(270)
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"must be a whole Parquet file, got damaged data"):
        Manifest(path)


def test_reading_media(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"file")
    write_media_store(tmp_path / "media.parquet", [{"key": "k#1", "bytes": b"row"}])
    write_manifest(tmp_path / "m.jsonl", [row(0)])
    manifest = Manifest(tmp_path / "m.jsonl")
    assert manifest.read_media(Part(type="see", path="sub/a.png")) == b"file"
    assert manifest.read_media(Part(type="see", path=str(tmp_path / "sub/a.png"))) == b"file"
    assert manifest.read_media(Part(type="see", path="media.parquet#k#1")) == b"row"


@pytest.mark.parametrize("path", ["a.png", "sub", "http://x.org/a.png", "a\0b", "c.txt#1"])
def test_missing_media(tmp_path, path):
    (tmp_path / "sub").mkdir()
    write_manifest(tmp_path / "m.jsonl", [row(0)])
    with pytest.raises(MediaError, match=r" must be a file beside the manifest, got .*; correct"):
        Manifest(tmp_path / "m.jsonl").read_media(Part(type="see", path=path))


def test_text_is_no_medium(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [row(0)])
    with pytest.raises(MediaError, match="must have a path to be read, got text 'hello'"):
        Manifest(tmp_path / "m.jsonl").read_media(Part(type="text", text="hello"))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "must have at least one row"),
        ([row(0), row(0)], "must be unique, got 's0' twice"),
        ([row(0), {"id": "a"}], r"m\.jsonl, row 2: messages must be given"),
        ([row(0, colour="red")], r"row 1: fields must be among id, .*, got 'colour'"),
    ],
)
def test_writing_broken_rows(tmp_path, rows, reason):
    with pytest.raises(ManifestError, match=reason):
        write_manifest(tmp_path / "m.jsonl", rows)
    assert list(tmp_path.iterdir()) == []


def test_opening_parses_nothing(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text((json.dumps(row(0)) + "\n") * 50_000)
    start = time.perf_counter()
    assert len(Manifest(path)) == 50_000
    assert time.perf_counter() - start < 1
