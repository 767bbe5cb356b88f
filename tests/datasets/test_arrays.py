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

from pathweave.datasets.arrays import load_arrays
from pathweave.errors import ManifestError

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
