import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.data import manifest as manifest_module
from pathweave.data.manifest import Manifest, evenly_spaced, write_manifest, write_samples
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Part, Sample
from pathweave.decoders.pair import unpack_pair
from pathweave.errors import DiskError, ManifestError, MediaError


def row(i: int, **fields):
    parts = [{"type": "see", "path": f"{i}.png"}, {"type": "text", "text": "What is it?"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": f"thing {i}"},
    ]
    return {"id": f"s{i}", "messages": messages, **fields}


def lines(path, *rows):
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8"
    )
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
    packed = manifest.read_media(manifest[0].prompt[0])
    assert unpack_pair(packed) == (b"colours", b"distances")
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
        ("[1, 2]", r"one JSON object in UTF-8, got '\[1, 2\]' \(of type list\)"),
        ('{"id": "s1"}', "messages: Field required"),
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
    (tmp_path / "m.jsonl").write_text(content, encoding="utf-8")
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
        ([row(0), {"id": "a"}], r"m\.jsonl, row 2: messages: Field required"),
        (
            [row(0, colour="red")],
            r"row 1: a field must be one of \['attribution', .*, got 'colour'",
        ),
    ],
)
def test_writing_broken_rows(tmp_path, rows, reason):
    with pytest.raises(ManifestError, match=reason):
        write_manifest(tmp_path / "m.jsonl", rows)
    assert list(tmp_path.iterdir()) == []


def test_opening_parses_nothing(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("no JSON at all\n" * 50_000, encoding="utf-8")
    assert len(Manifest(path)) == 50_000


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"messages": ' + "[" * 100_000, '{"id": ' + '{"a": ' * 100_000, "[" * 990],
)
def test_a_line_of_many_brackets_is_listed_and_the_others_are_read(tmp_path, line):
    manifest = Manifest(lines(tmp_path / "m.jsonl", row(0), line, row(2)), on_error="collect")
    assert [sample.id for sample in manifest] == ["s0", "s2"]
    (problem,) = manifest.problems
    assert "m.jsonl, line 2: a line must be one JSON object" in problem


def test_messages_of_many_brackets_in_parquet_are_listed(tmp_path):
    messages = [json.dumps(row(0)["messages"]), "[" * 100_000, "[" * 900 + "]" * 900]
    pq.write_table(pa.table({"id": list("abc"), "messages": messages}), tmp_path / "m.parquet")
    manifest = Manifest(tmp_path / "m.parquet", on_error="collect")
    assert [sample.id for sample in manifest] == ["a"]
    assert "row 2: messages must be a JSON list, got '[[[[" in manifest.problems[0]
    assert "row 3: messages.0: must be" in manifest.problems[1]


def test_text_in_parquet_that_is_not_utf_8_is_listed(tmp_path):
    messages = json.dumps(row(0)["messages"])
    table = pa.table({"id": ["a", "b"], "messages": [messages, messages]})
    sources = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "i4")), pa.py_buffer(b"x\xe9")]
    )
    pq.write_table(table.append_column("source", sources), tmp_path / "m.parquet")
    manifest = Manifest(tmp_path / "m.parquet", on_error="collect")
    assert [sample.id for sample in manifest] == ["a"]
    assert "row 2: text must be UTF-8, got 'utf-8' codec" in manifest.problems[0]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_sample_with_the_id_of_an_earlier_one_is_listed(tmp_path, suffix):
    file = tmp_path / f"m{suffix}"
    rows = [row(0), row(1), {**row(2), "id": "s0"}, row(3), {**row(4), "id": "s0"}]
    if suffix == ".jsonl":
        lines(file, *rows)
    else:
        texts = [{**fields, "messages": json.dumps(fields["messages"])} for fields in rows]
        pq.write_table(pa.Table.from_pylist(texts), file)
    manifest = Manifest(file, on_error="collect")
    assert [sample.id for sample in manifest] == ["s0", "s1", "s3"]
    assert manifest[0].answer == "thing 0"
    assert manifest.problems == Manifest(file).check()
    assert [problem.split(": ")[0][-1] for problem in manifest.problems] == ["3", "5"]
    first = "line 1" if suffix == ".jsonl" else "row 1"
    assert f"ids must be unique, got 's0' of {file}, {first} again; give" in manifest.problems[0]


@pytest.mark.parametrize("name", ["m.JSONL", "m.Parquet"])
def test_an_ending_in_capitals_is_read_and_written(tmp_path, name):
    write_media_store(tmp_path / "media.PARQUET", [{"key": "k", "bytes": b"row"}])
    write_manifest(tmp_path / name, [row(0)])
    manifest = Manifest(tmp_path / name)
    assert [sample.id for sample in manifest] == ["s0"]
    assert manifest.read_media(Part(type="see", path="media.PARQUET#k")) == b"row"


def test_a_manifest_is_not_written_to_a_path_that_is_not_utf_8_but_read_from_there(tmp_path):
    directory = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ManifestError, match=r"path of a manifest must be UTF-8, got '.*udce9"):
        write_manifest(directory / "m.jsonl", [row(0)])
    assert not directory.exists()
    directory.mkdir()
    assert Manifest(lines(directory / "m.jsonl", row(0)))[0].id == "s0"


@given(st.integers(0, 5000), st.none() | st.integers(1, 6000))
def test_a_limit_takes_samples_from_end_to_end(total, limit):
    chosen = evenly_spaced(total, limit)
    assert len(chosen) == min(total, limit or total)
    if limit is None or limit >= total:
        assert chosen == list(range(total))
    elif limit > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
        gaps = np.diff(chosen)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_600_of_1000_rows_are_spread_over_all_of_them():
    chosen = evenly_spaced(1000, 600)
    assert chosen[:5] == [0, 1, 3, 5, 6]
    assert chosen[-3:] == [995, 997, 999]
    assert chosen == np.linspace(0, 999, 600).astype(int).tolist()


def samples(count, ids=None):
    for i in range(count):
        yield Sample.model_validate(
            {
                "id": ids or f"{i}",
                "messages": [
                    {"role": "user", "content": [{"type": "smell", "path": f"{i}.npy"}]},
                    {"role": "assistant", "content": f"caf\u00e9 {i}"},
                ],
                "references": [f"{i}"],
            }
        )


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_manifest_reads_what_was_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "_GROUP_ROWS", 2)
    assert write_samples(tmp_path / name, samples(5)) == 5
    assert list(Manifest(tmp_path / name)) == list(samples(5))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_failure_leaves_the_old_file(name, tmp_path):
    write_samples(tmp_path / name, samples(1))
    with pytest.raises(ManifestError, match=r"ids in .* must be unique, got 'x' twice"):
        write_samples(tmp_path / name, samples(3, ids="x"))
    with pytest.raises(ManifestError, match=r"must have at least one row, got none; add"):
        write_samples(tmp_path / name, samples(0))
    assert len(Manifest(tmp_path / name)) == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_another_ending_and_a_directory_that_cannot_be_written(tmp_path):
    with pytest.raises(
        ManifestError, match=r"must be a \.jsonl or \.parquet file, got a\.csv; convert or rename"
    ):
        write_samples(tmp_path / "a.csv", samples(1))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DiskError, match="cannot be written"):
        write_samples(tmp_path / "file" / "a.jsonl", samples(1))
