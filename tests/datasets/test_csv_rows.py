import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.datasets.csv_rows import iterate_csv
from pathweave.errors import ManifestError
from tests.datasets.files import table

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
