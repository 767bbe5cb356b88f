import contextlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pathweave.datasets.points import load_arrays, read_points
from pathweave.errors import ManifestError
from tests.datasets.files import clouds, write

CLOUD = np.ones((4, 3))


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
        assert found[2].reason.startswith("a label must be a whole number below 2, got array([2]")

    @pytest.mark.parametrize("label", [float("inf"), float("nan"), 1.7, -1, "1", None, 10**30])
    def test_a_label_that_is_no_number_of_a_class(self, label, tmp_path):
        found = self.read(tmp_path, pickle.dumps([[CLOUD] * 3, [0, label, 2]]))
        assert found[1].reason.startswith("a label must be a whole number below 3, got ")
        assert (found[0].kind, found[2].kind) == ("usable", "usable")

    @pytest.mark.parametrize(
        ("cloud", "message"),
        [
            (np.zeros((4, 2)), "b_2 must have the shape [points, 3 or more], got [4, 2]"),
            (np.zeros(4), "b_2 must have the shape [points, 3 or more], got [4]"),
            (np.zeros((0, 3)), "b_2 must have at least one point, got none"),
            (None, "b_2 must be an array [points, 3 or more], got NoneType"),
            ("text", "b_2 must be an array [points, 3 or more], got str"),
            ([[1.0, 2.0, 3.0], [1.0]], "b_2 must be an array [points, 3 or more], got list"),
            (np.full((4, 3), np.nan), "b_2 must have finite coordinates in at least 99 % of its "
             "points, got 4 bad of 4"),
        ],
    )  # fmt: skip
    def test_a_broken_cloud_breaks_its_row_alone(self, cloud, message, tmp_path):
        found = self.read(tmp_path, pickle.dumps([[CLOUD, cloud, CLOUD], [0, 1, 2]]))
        assert [record.reason for record in found] == [
            *("", f"{message}; correct the row or remove it", "")
        ]

    def test_one_bad_point_in_a_hundred_is_no_damage_as_for_files(self, tmp_path):
        cloud = np.ones((200, 3))
        cloud[7] = np.nan
        found = self.read(tmp_path, pickle.dumps([[CLOUD, cloud, CLOUD], [0, 1, 2]]))
        assert found[1].kind == "usable"

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


NUMBERS = arrays.integer_dtypes() | arrays.floating_dtypes() | arrays.unsigned_integer_dtypes()


def load(data):
    return load_arrays(io.BytesIO(data), "a.dat")


@given(
    arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)),
    st.integers(2, pickle.HIGHEST_PROTOCOL),
    st.sampled_from(["C", "F"]),
)
def test_arrays_come_out_as_they_went_in(array, protocol, order):
    array = np.array(array, order=order)
    if protocol == 2:  # bytes are text there, and a function is needed to turn them back
        with pytest.raises(ManifestError, match=r"got the name _codecs\.encode"):
            load(pickle.dumps(array, protocol))
        return
    found, name, (nothing,) = load(pickle.dumps([array, "a", (None,)], protocol))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert (name, nothing) == ("a", None)


class Runs:
    """Asks to have something called on loading."""

    def __init__(self, function, *arguments):
        self.wanted = function, arguments

    def __reduce__(self):
        return self.wanted


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch PATH",), "posix.system"),
        (eval, ("open('PATH', 'w')",), "builtins.eval"),
        (Path.touch, (Path("PATH"),), "pathlib|getattr"),
        (np.save, ("PATH", 1), "numpy.save"),
        (np.fromfile, ("PATH",), "numpy"),
        (pickle.loads, (b"",), "_pickle.loads"),
        (np.array, ([1],), "numpy.array"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_is_called(function, arguments, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps([np.arange(3), Runs(function, *arguments)], protocol)
    with pytest.raises(
        ManifestError, match=r"a\.dat must be a pickle of lists and arrays"
    ) as error:
        load(data)
    assert "nothing of it was run" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_refused_name_is_told():
    with pytest.raises(ManifestError, match=r"got the name posix\.system"):
        load(pickle.dumps(Runs(os.system, "true")))


@pytest.mark.parametrize(
    "value",
    [
        np.array([os.system], dtype=object),
        np.array([(1, 2)], dtype=[("a", "i4"), ("b", "O")]),
        np.array(["text"]),
        np.dtype("O"),
        np.datetime64("2024-01-01"),
        {1, 2},
        np.ma.array([1, 2]),
    ],
    ids=["objects", "fields", "text", "dtype", "date", "set", "masked"],
)
def test_anything_but_numbers_is_refused(value):
    with pytest.raises(
        ManifestError, match=r"must be a pickle of lists and arrays of numbers, got"
    ):
        load(pickle.dumps([value]))


def test_a_state_that_claims_more_than_there_is_is_refused():
    """NumPy's own reconstruction would take flags and shapes from the file."""
    reconstruct, arguments, state = np.arange(4, dtype=np.int64).__reduce__()
    for forged in [
        (1, (1 << 40,), *state[2:]),
        (1, (-1,), "i8", False, b"12345678"),
        (1, (1,), np.dtype("i8"), False, [os.system]),
        (1, "shape", *state[2:]),
        (),
    ]:

        class Forged:
            def __reduce__(self, forged=forged):
                return reconstruct, arguments, forged

        with pytest.raises(ManifestError, match="must be a pickle of lists and arrays"):
            load(pickle.dumps(Forged()))


@pytest.mark.parametrize("data", [b"", b"\x80", b"not a pickle", b"\x80\x04", b"(" * 50])
def test_damage_is_told(data):
    with pytest.raises(ManifestError, match=r"a\.dat must be a pickle of lists and arrays"):
        load(data)


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x00", b"p16777215\n", b"q\x07"])
def test_a_pickle_that_asks_for_room_it_does_not_use_is_refused(put):
    """One of ten bytes can have Python allocate gigabytes."""
    with pytest.raises(ManifestError, match=r"got room for [\d,]+ values in step 2"):
        load(b"\x80\x02K\x01" + put + b".")


@given(st.binary(max_size=60))
def test_no_bytes_cause_another_error(data):
    with contextlib.suppress(ManifestError):
        load(data)


def test_a_list_that_holds_itself_is_refused():
    values = []
    values.append(values)
    with pytest.raises(ManifestError, match="must be a pickle of lists"):
        load(pickle.dumps(values))
