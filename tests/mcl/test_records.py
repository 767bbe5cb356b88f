import pytest

from pathweave.errors import ManifestError
from pathweave.mcl.declaration import Layout
from pathweave.mcl.records import read_points, read_records, read_table
from tests.mcl.files import clouds, table, write


def records(file, **layout):
    return list(read_records(file, Layout(**layout), lambda _: None))


def test_tsv_json_lines_and_a_byte_order_mark(tmp_path):
    file = write(tmp_path, "a.tsv", table(["id", "caption"], [1, "a, b"], delimiter="\t"))
    assert records(file, format="csv")[0].values == {"id": "1", "caption": "a, b"}
    file = write(tmp_path, "a.jsonl", '\ufeff{"id": 1}\n\n{"id": 2}\n'.encode())
    assert [record.values for record in records(file, format="jsonl")] == [{"id": 1}, {"id": 2}]
    file = write(tmp_path, "a.csv", "\ufeffid,x\r\n1,2\r\n".encode())
    assert records(file, format="csv")[0].values == {"id": "1", "x": "2"}


def test_broken_rows_of_csv_are_told_and_the_rest_is_read(tmp_path):
    rows = ["id,caption", "1,one", "2", "3,three,3", '4,"fo"ur', "", "5,five"]
    found = records(write(tmp_path, "a.csv", "\n".join(rows)), format="csv")
    assert [record.values.get("id", "") for record in found] == ["1", "", "", "", "5"]
    assert found[1].place == f"{tmp_path / 'a.csv'}, row 2"
    assert found[1].problem == "a row must have the columns id, caption, got 1 values"
    assert found[2].problem == "a row must have the columns id, caption, got 3 values"
    assert found[3].problem.startswith("a row must be CSV, got ',' expected after '\"'")


def test_a_quotation_mark_that_is_never_closed(tmp_path):
    found = records(write(tmp_path, "a.csv", 'id,caption\n1,one\n2,"two\n3,three\n'), format="csv")
    assert found[0].values == {"id": "1", "caption": "one"}
    assert found[-1].problem == (
        "a row must be CSV, got unexpected end of data; correct its quotation marks"
    )


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("a.csv", "id,caption\n1,caf\xe9\n2,tea\n", {"format": "csv"}),
        ("a.json", '[{"id": 1, "c": ["caf\xe9"]}, {"id": 2}]', {}),
        ("a.jsonl", '{"id": 1, "c": "caf\xe9"}\n{"id": 2}\n', {"format": "jsonl"}),
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
    with pytest.raises(ManifestError, match=r"a\.x must exist, got no such file; download it"):
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


def test_a_table_is_read_by_its_key(tmp_path):
    file = write(tmp_path, "a.csv", table(["mid", "name"], ["/m/1", "Dog"]))
    assert read_table(file, "mid")["/m/1"]["name"] == "Dog"
    with pytest.raises(ManifestError, match=r"row 1: a record must have the field 'code', got mid"):
        read_table(file, "code")
    broken = write(tmp_path, "b.csv", "mid,name\n1\n")
    with pytest.raises(ManifestError, match=r"row 1: a row must have the columns mid, name"):
        read_table(broken, "mid")


class TestPoints:
    def read(self, root, data, names="airplane\nbathtub\nbed\n", ids="a_1\nb_2\nc_3\n"):
        files = (write(root, "a.dat", data), write(root, "n", names), write(root, "i", ids))
        return list(read_points(*files))

    def test_clouds_get_their_ids_and_names(self, tmp_path):
        found = self.read(tmp_path, clouds())
        assert [record.values["sample_id"] for record in found] == ["a_1", "b_2", "c_3"]
        assert [record.values["label"] for record in found] == ["airplane", "bathtub", "bed"]
        assert found[2].values["points"].shape == (16, 6)

    def test_a_label_without_a_name(self, tmp_path):
        found = self.read(tmp_path, clouds(), names="airplane\nbathtub\n")
        assert found[2].problem.startswith("a label must be a number below 2, got array([2]")

    @pytest.mark.parametrize("ids", ["a_1\n", "a\nb\nc\nd\n"])
    def test_ids_of_another_split(self, ids, tmp_path):
        with pytest.raises(
            ManifestError, match=r"for the \d ids of i, got lists of \[3, 3\]; down"
        ):
            self.read(tmp_path, clouds(), ids=ids)

    def test_another_pickle(self, tmp_path):
        with pytest.raises(ManifestError, match=r"must hold a list of points and a list of labels"):
            self.read(tmp_path, b"\x80\x04K\x01.")

    def test_a_malicious_pickle(self, tmp_path):
        with pytest.raises(ManifestError, match=r"got the name posix\.system; nothing of it was"):
            self.read(tmp_path, b"cposix\nsystem\n(S'true'\ntR.")

    def test_a_missing_list_of_names(self, tmp_path):
        write(tmp_path, "a.dat", clouds())
        with pytest.raises(ManifestError, match=r"names must exist, got no such file"):
            list(read_points(tmp_path / "a.dat", tmp_path / "names", tmp_path / "ids"))
