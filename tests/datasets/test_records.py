import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.datasets.declaration import Layout
from pathweave.datasets.records import iterate_csv, read_records, read_table
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
    assert found[0].reason.startswith(r"text must be UTF-8, got 'caf\udce9'; convert the file")
    assert str(found[1].values["id"]) == "2"


def test_items_that_are_no_records(tmp_path):
    found = records(write(tmp_path, "a.json", '[1, {"id": 2}, null]'))
    assert (
        found[0].reason
        == "a record must be an object with fields, got 1; correct the row or remove it"
    )
    assert (found[1].kind, found[2].values) == ("usable", {})


def test_broken_lines_of_json(tmp_path):
    found = records(write(tmp_path, "a.jsonl", '{"id": 1}\n{"id": \n'), format="jsonl")
    assert found[0].values == {"id": 1}
    assert found[1].reason.startswith("a line must be one JSON object, got '{\"id\":'")


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
    assert sum(told) == file.stat().st_size >> 10
    assert len(told) > 5


def test_a_table_is_read_by_its_key(tmp_path):
    file = write(tmp_path, "a.csv", table(["mid", "name"], ["/m/1", "Dog"]))
    assert read_table(file, "mid")[0] == {"/m/1": {"mid": "/m/1", "name": "Dog"}}


def test_no_record_that_can_be_used(tmp_path):
    file = write(tmp_path, "a.csv", table(["mid", "name"], ["/m/1", "Dog"]))
    with pytest.raises(ManifestError, match=r"row 1: a record must have the field 'code', got mid"):
        read_table(file, "code")
    broken = write(tmp_path, "b.csv", "mid,name\n1\n")
    with pytest.raises(ManifestError, match=r"row 1: a row must have the columns mid, name"):
        read_table(broken, "mid")


def test_broken_records_are_told_and_the_rest_is_read(tmp_path):
    file = write(tmp_path, "a.json", [{"id": 1}, {"name": "x"}, 5, {"id": 2}])
    found, flaws = read_table(file, "id")
    assert list(found) == ["1", "2"]
    assert [flaw.reason for flaw in flaws] == [
        "a record must have the field 'id', got name; correct the row or remove it",
        "a record must be an object with fields, got 5; correct the row or remove it",
    ]
    assert flaws[0].place == f"{file}, row 2"


def test_one_key_for_different_records_is_none(tmp_path):
    same, other = {"id": 1, "file": "a"}, {"id": 1, "file": "b"}
    file = write(tmp_path, "a.json", [same, same, other, same, {"id": 2}])
    found, flaws = read_table(file, "id")
    assert list(found) == ["2"]
    (flaw,) = flaws
    assert flaw.reason.startswith("'id' must be unique, got '1' before with other values;")


# What begins with a comma may look like the end of a row that was never closed.
CAPTIONS = st.text('ab ,"\n', max_size=12).filter(lambda text: not text.lstrip().startswith(","))


def read(text, *columns):
    return list(iterate_csv(io.StringIO(text, newline=""), "a.csv", columns, ","))


def test_broken_rows_are_told_and_the_rest_is_read():
    rows = ["id,caption", "1,one", "2", "3,three,3", '4,"fo"ur', "", "5,five"]
    found = read("\n".join(rows))
    assert [(record or {}).get("id", "") for record, _ in found] == ["1", "", "", "", "5"]
    assert found[1][1] == "a row must have the columns id, caption, got 1 values"
    assert found[2][1] == "a row must have the columns id, caption, got 3 values"
    assert found[3][1].startswith("a row must be CSV with its quotation marks closed, got ',' exp")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("xy", min_size=1, max_size=3), CAPTIONS), max_size=9),
       st.data())  # fmt: skip
def test_a_mark_that_is_never_closed_costs_its_own_row(rows, data):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    lines = [line + "\n" for line in text.getvalue().split("\r\n")[:-1]]
    expected = read("".join(lines), "id", "caption")
    assert [problem for _, problem in expected] == [""] * len(rows)
    at = data.draw(st.integers(0, len(lines)))
    found = read("".join([*lines[:at], 'z,"never closed\n', *lines[at:]]), "id", "caption")
    assert found[at][1].startswith("a row must ")
    assert found[:at] + found[at + 1 :] == expected


def test_a_mark_that_is_never_closed_before_many_rows():
    rows = [[i, f"b, {i}" * 9] for i in range(20_000)]
    lines = table(["id", "caption"], *rows).splitlines(keepends=True)
    lines[10_000] = '9999,"never closed\r\n'
    found = read("".join(lines))
    assert len(found) == 20_000
    assert [number for number, (_, problem) in enumerate(found) if problem] == [9999]


def test_a_row_may_have_lines():
    assert read('id,says\n1,"a\nb"\n')[0][0] == {"id": "1", "says": "a\nb"}


def test_names_of_columns():
    assert read("\n\nid\n7\n") == [({"id": "7"}, "")]
    with pytest.raises(ManifestError, match="must begin with the names of columns, got an empty f"):
        read("\n")
    with pytest.raises(ManifestError, match=r"columns, got unexpected end of data; correct its"):
        read('"id\n')


@pytest.mark.parametrize("data", ["id,caf\xe9\n1,2\n".encode("latin-1"), "id,x\n".encode("utf-16")])
def test_names_of_columns_that_are_not_utf_8(data):
    with pytest.raises(ManifestError, match=r"in UTF-8, got '.*udc.*; convert the file to UTF-8"):
        read(data.decode("utf-8", "surrogateescape"))
