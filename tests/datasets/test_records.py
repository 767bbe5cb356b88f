import pytest

from pathweave.datasets.declaration import Layout
from pathweave.datasets.records import read_records
from pathweave.errors import ManifestError
from tests.datasets.files import table, write


def records(file, **layout):
    return list(read_records(file, Layout(**layout), lambda _: None))


def test_tsv_json_lines_and_a_byte_order_mark(tmp_path):
    file = write(tmp_path, "a.tsv", table(["id", "caption"], [1, "a, b"], delimiter="\t"))
    assert records(file, format="csv")[0].values == {"id": "1", "caption": "a, b"}
    file = write(tmp_path, "a.jsonl", '\ufeff{"id": 1}\n\n{"id": 2}\n'.encode())
    assert [record.values for record in records(file, format="jsonl")] == [{"id": 1}, {"id": 2}]
    file = write(tmp_path, "a.csv", "\ufeffid,x\r\n1,2\r\n".encode())
    assert records(file, format="csv")[0].values == {"id": "1", "x": "2"}


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("a.csv", "id,caption\n1,caf\xe9\n2,tea\n", {"format": "csv"}),
        ("a.json", '[{"id": 1, "c": ["caf\xe9"]}, {"id": 2}]', {}),
        ("a.jsonl", '{"id": 1, "c": "caf\xe9"}\n{"id": 2}\n', {"format": "jsonl"}),
        ("b.json", '[{"caf\xe9": 1, "id": 1}, {"id": 2}]', {}),
        ("c.json", '{"caf\xe9": {"id": 1}, "b": {"id": 2}}', {}),
    ],
)
def test_text_that_is_not_utf_8_breaks_its_row_alone(name, text, layout, tmp_path):
    found = records(write(tmp_path, name, text.encode("latin-1")), **layout)
    assert found[0].problem.startswith(r"text must be UTF-8, got 'caf\udce9'; convert the file")
    assert str(found[1].values["id"]) == "2"


def test_items_that_are_no_records(tmp_path):
    found = records(write(tmp_path, "a.json", '[1, {"id": 2}, null]'))
    assert found[0].problem == "a record must be an object with fields, got 1"
    assert (found[1].problem, found[2].values) == ("", {})


def test_broken_lines_of_json(tmp_path):
    found = records(write(tmp_path, "a.jsonl", '{"id": 1}\n{"id": \n'), format="jsonl")
    assert found[0].values == {"id": 1}
    assert found[1].problem.startswith("a line must be one JSON object, got '{\"id\":'")


@pytest.mark.parametrize("layout", [{"format": "csv"}, {}, {"format": "jsonl"}])
def test_a_missing_file_and_a_directory(layout, tmp_path):
    with pytest.raises(ManifestError, match=r"a\.x must exist, got no such file; correct the path"):
        records(tmp_path / "a.x", **layout)
    with pytest.raises(ManifestError, match=r"must be readable, got Is a directory; correct"):
        records(tmp_path, **layout)


def test_an_empty_file(tmp_path):
    file = write(tmp_path, "a.csv", "")
    with pytest.raises(ManifestError, match=r"must begin with the names of columns, got an empty"):
        records(file, format="csv")
    with pytest.raises(ManifestError, match="must hold an object or a list, got ''"):
        records(file)
    with pytest.raises(ManifestError, match="must begin with the names of columns, got"):
        records(write(tmp_path, "b.csv", '"id\n'), format="csv")


def test_bytes_read_are_told(tmp_path):
    rows = [["id", "caption"], *([i, "word " * 20] for i in range(2000))]
    file, told = write(tmp_path, "a.csv", table(*rows)), []
    assert len(list(read_records(file, Layout(format="csv"), told.append))) == 2000
    assert sum(told) == file.stat().st_size
    assert len(told) > 5
