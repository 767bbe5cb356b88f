import pytest

from pathweave.datasets.tables import read_table
from pathweave.errors import ManifestError
from tests.datasets.files import table, write


def test_a_table_is_read_by_its_key(tmp_path):
    file = write(tmp_path, "a.csv", table(["mid", "name"], ["/m/1", "Dog"]))
    assert read_table(file, "mid").records == {"/m/1": {"mid": "/m/1", "name": "Dog"}}


def test_no_record_that_can_be_used(tmp_path):
    file = write(tmp_path, "a.csv", table(["mid", "name"], ["/m/1", "Dog"]))
    with pytest.raises(ManifestError, match=r"row 1: a record must have the field 'code', got mid"):
        read_table(file, "code")
    broken = write(tmp_path, "b.csv", "mid,name\n1\n")
    with pytest.raises(ManifestError, match=r"row 1: a row must have the columns mid, name"):
        read_table(broken, "mid")


def test_broken_records_are_told_and_the_rest_is_read(tmp_path):
    file = write(tmp_path, "a.json", [{"id": 1}, {"name": "x"}, 5, {"id": 2}])
    found = read_table(file, "id")
    assert list(found.records) == ["1", "2"]
    assert [entry.flaw for entry in found.flaws] == [
        "a record must have the field 'id', got name",
        "a record must be an object with fields, got 5",
    ]
    assert found.flaws[0].place == f"{file}, row 2"


def test_one_key_for_different_records_is_none(tmp_path):
    same, other = {"id": 1, "file": "a"}, {"id": 1, "file": "b"}
    file = write(tmp_path, "a.json", [same, same, other, same, {"id": 2}])
    found = read_table(file, "id")
    assert list(found.records) == ["2"]
    (entry,) = found.flaws
    assert entry.flaw == "'id' must be unique, got '1' before with other values"
