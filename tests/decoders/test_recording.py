"""Recordings: from files of numbers over time to windows; what is wrong with one is told."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.decoders import build_decoder
from pathweave.decoders.recording import Recording, find_form
from pathweave.errors import MediaError, RecipeError

VALUES = np.arange(12.0).reshape(6, 2)


def table(values=VALUES, names=("x", "y"), separator=",", start="", decimal="."):
    rows = [separator.join(names)] if names else []
    rows += [separator.join(str(v).replace(".", decimal) for v in row) for row in values]
    return (start + "\n".join(rows) + "\n").encode()


def parquet(**columns):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def decode(data, **options):
    return Recording(**{"rate": 10.0, **options})(data, "file").values


# What is read


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (table(), {}),
        (table(start="\ufeff"), {}),
        (table(separator=";", decimal=","), {"decimal": ","}),
        (table(separator="\t"), {}),
        (table(names=()), {"header": False}),
        (table().replace(b"\n", b"\r\n"), {}),
        (table() + b"\n\n", {}),
        (parquet(x=VALUES[:, 0], y=VALUES[:, 1]), {}),
        (npy(VALUES), {}),
        (npy(VALUES.astype(np.int16)), {"channels": 2}),
        (table(VALUES[:, [1, 0, 1]], ("y", "x", "z")), {"channels": ("x", "y")}),
        (parquet(note=list("abcdef"), y=VALUES[:, 1], x=VALUES[:, 0]), {"channels": ("x", "y")}),
    ],
)
def test_every_kind_of_file_gives_the_same_numbers(data, options):
    found = decode(data, **options)
    assert found.dtype == np.float32
    assert found.tolist() == [VALUES.tolist()]


NUMBERS = st.floats(-1e6, 1e6, width=32).map(lambda number: round(number, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), min_size=2, max_size=5)
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(".,"),
    st.booleans(),
    st.booleans(),
)
def test_the_form_of_text_is_found_and_reads_it(rows, separator, decimal, header, quoted):
    stream = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted or decimal == separator else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, delimiter=separator, quoting=quoting)
    if header or len(rows[0]) == 1 or decimal == separator:  # a lone "1,5" may be two cells
        header = True
        writer.writerow([f"c{n}" for n, _ in enumerate(rows[0])])
    cells = [[f"{number:.3f}".replace(".", decimal) for number in row] for row in rows]
    writer.writerows(cells)
    data = stream.getvalue().encode()
    if decimal == "," and separator != "," and len(rows[0]) == 1:
        return  # a lone column has no separator that would tell
    assert find_form(data) == (header, decimal)
    assert decode(data, header=header, decimal=decimal)[0] == pytest.approx(np.float32(rows))


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (table(), (True, ".")),
        (table(names=(), start="\ufeff"), (False, ".")),
        (b"1,2\n3,4\n", (False, None)),
        (b"x;y\n1;2\n", (True, None)),
        (b"0,1,2\n5,6,7\n", (True, None)),  # names that a program has numbered
        (b",0,1\n0,6.5,7\n", (True, ".")),
        (b",1.5\n2.5,3\n", (False, ".")),
        (b"2026-01-01 10:00:00,1\n", (False, None)),
        (b"x;y\n1,5;2.5\n", (True, ".")),  # both signs: the first cell is told when it is read
        (parquet(x=[1.5]), (True, None)),
        (b"", (True, None)),
        (b"\n\n", (True, None)),
    ],
)
def test_the_form_of_text_is_taken_where_it_is_clear(data, form):
    assert find_form(data) == form


def test_a_sound_is_read_as_numbers_at_its_own_rate():
    stream = io.BytesIO()
    wave = np.stack([np.linspace(-1, 1, 80), np.linspace(1, -1, 80)], axis=1)
    soundfile.write(stream, wave, 20, format="WAV", subtype="FLOAT")
    found = decode(stream.getvalue(), rate=20.0)
    np.testing.assert_allclose(found[0], wave, atol=1e-6)
    assert decode(stream.getvalue(), rate=10.0).shape == (1, 40, 2)


def test_an_array_with_one_axis_has_one_channel():
    assert decode(npy(np.arange(5.0))).shape == (1, 5, 1)


@pytest.mark.parametrize(
    ("times", "options"),
    [
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], {}),
        ([7.0, 7.1, 7.2, 7.3, 7.4, 7.5], {}),
        ([0, 100, 200, 300, 400, 500], {"time_unit": "ms"}),
        ([0.0, 0.11, 0.2, 0.29, 0.4, 0.5], {}),  # a clock that jitters
    ],
)
def test_the_column_of_time_tells_the_rate(times, options):
    data = parquet(t=times, x=VALUES[:, 0], y=VALUES[:, 1])
    assert decode(data, time="t", **options).tolist() == [VALUES.tolist()]
    assert decode(data, time="t", rate=5.0, **options).shape == (1, 3, 2)


def test_dates_are_times():
    rows = [f"2026-01-01 10:00:0{i}.5,{i}" for i in range(5)]
    data = ("when,x\n" + "\n".join(rows)).encode()
    assert decode(data, time="when", rate=1.0).tolist() == [[[i] for i in range(5)]]


def test_times_rounded_to_milliseconds_are_even():
    """At 128 Hz steps are 7 or 8 ms; over an hour nothing is lost to rounding."""
    count = 128 * 60 * 60
    times = np.round(np.arange(count) / 128, 3)
    data = parquet(t=times, x=np.arange(count, dtype=np.float32))
    found = decode(data, time="t", rate=128.0)
    assert found.shape == (1, count, 1)
    assert (found[0, :, 0] == np.arange(count)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.integers(1, 8))
def test_windows_are_cut_where_they_begin(count, length, hop, windows):
    values = np.arange(1.0, count + 1)
    found = decode(npy(values), seconds=length / 10, hop=hop / 10, windows=windows)[..., 0]
    assert 1 <= len(found) <= windows
    for i, window in enumerate(found):
        expected = values[i * hop : i * hop + length]
        assert window[: len(expected)].tolist() == expected.tolist()
        assert np.isnan(window[len(expected) :]).all()
    whole = [i * hop + length <= count for i in range(len(found))]
    assert all(whole[:-1])  # only the last may be filled up
    assert len(found) == windows or len(found) * hop + length > count


def test_resampling_keeps_a_slow_wave():
    seconds = np.arange(0, 4, 0.01)
    wave = np.stack([np.sin(2 * np.pi * seconds), np.cos(2 * np.pi * seconds)], axis=1)
    found = decode(npy(wave), rate=25.0, file_rate=100.0)[0]
    assert found.shape == (100, 2)
    np.testing.assert_allclose(found[20:80], wave[::4][20:80], atol=0.02)


def test_missing_values_and_rows_are_marked_where_that_is_wished():
    data = b"t,x,y\n0,1,2\n0.1,,3\n0.3,4,5\n"
    found = decode(data, time="t", gaps="mask")[0]
    assert np.isnan(found).tolist() == [[False, False], [True, False], [True, True], [False, False]]
    with pytest.raises(MediaError, match=r"hold every value, got 3 missing, the first in row 2"):
        decode(data, time="t")
    slower = decode(data, time="t", gaps="mask", rate=5.0)[0]
    assert np.isnan(slower[1]).all()


def test_ten_minutes_of_nine_channels_at_100_hz_keep_every_number():
    values = np.random.default_rng(0).normal(size=(60_000, 9)).astype(np.float32)
    assert (decode(npy(values), rate=100.0)[0] == values).all()
    assert decode(npy(values), rate=100.0, seconds=60, windows=10).shape == (10, 6000, 9)


def test_every_option_changes_the_fingerprint():
    one = Recording(rate=10.0)
    changes = dict(rate=20.0, file_rate=5.0, channels=2, time="t", time_unit="ms", seconds=1.0)
    changes |= dict(hop=0.5, windows=2, gaps="mask", decimal=",", header=False)
    assert changes.keys() == Recording.model_fields.keys()
    prints = {Recording(**{"rate": 10.0, name: v}).fingerprint for name, v in changes.items()}
    assert len(prints | {one.fingerprint}) == len(changes) + 1


# What is refused


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (b"", {}, "must be a whole recording"),
        (b"\x00\x01\x02\xff", {}, "must be a whole recording"),
        (b"x,y\n", {}, "must have a row of numbers, got none"),
        (b"1,2\n3,4\n", {}, "names of its columns in its first row, got '1,2'; add them, or set"),
        (b"x,y\n1,2\n3\n", {}, "must be a whole recording .* Expected 2 columns, got 1"),
        (b"x,y\n1,2\n3,fast\n", {}, r"numbers in column 'y', got 'fast' .*leave the column out"),
        (b"x;y\n1,5;2\n2,5;3\n", {}, r"column 'x', got '1,5' .*set decimal: ','"),
        (b"x,x\n1,2\n", {"channels": ("x",)}, "one column 'x', got 2 of that name"),
        (b"x,x\n1,2\n", {}, "one column 'x', got 2 of that name"),
        (b",x\n0,2\n", {}, "a name for every column, got none for column 1; name those"),
        (b"x,y\n1,2\n", {"channels": ("x", "z")}, "one column 'z', got no such column among x, y"),
        (b"x,y\n1,2\n", {"channels": 3}, "must have 3 channels, got x, y; name those"),
        (b"x,y\n1,inf\n", {}, r"finite numbers of at most 3.4e\+38, got infinity in row 1"),
        (b"x,y\n1,2\n-1e39,2\n", {}, r"finite numbers of at most 3.4e\+38, got -1e\+39 in row 2"),
        (b"\xb0C,y\n1,2\n", {}, "text in UTF-8, got byte 0xb0 in its first row; convert it"),
        ("x,y\n1,2\n".encode("utf-16"), {}, "text in UTF-8, got byte 0xff in its first row"),
        (b"x;y\n;2\n2.5;3\n", {"decimal": ","}, r"column 'x', got '2.5' .*set decimal: '\.'"),
        (b"x,y\n,2\nfast,3\n", {"gaps": "mask"}, "column 'x', got 'fast'"),
        (
            b"x,y\n1,2\n3,\n",
            {},
            "hold every value, got 1 missing, the first in row 2; fill them in",
        ),
        (b"x,y\n1,\n3,\n", {"gaps": "mask"}, "a number in every channel, got none in channel 2"),
        (npy(np.zeros((2, 3, 4))), {}, r"\[time, channels\] or \[time\], got \[2, 3, 4\]"),
        (npy(np.zeros((9, 2))), {"channels": 9}, "must have 9 channels, got 2"),
        (npy(np.array(["a"])), {}, "real numbers"),
        (parquet(x=["a", "b"]), {}, "numbers in column 'x', got 'a'"),
        (parquet(x=[1.0, 2.0])[:-9], {}, "must be a whole recording"),
        (b"RIFF\x00\x00\x00\x00WAVE", {}, "must be a whole recording"),
        (b"t,x\n0,1\n", {"time": "t"}, "two rows or more, each with its time, got 1 rows"),
        (b"t,x\n0,1\n,2\n1,3\n", {"time": "t"}, "got a time that is missing"),
        (b"t,x\n0,1\n0,2\n", {"time": "t"}, "times that grow from row to row, got 0 s after row 1"),
        (b"t,x\n0,1\n2,2\n1,3\n", {"time": "t"}, "got -1 s after row 2; sort the rows"),
        (b"t,x\n0,1\n1,2\n2.5,3\n3.5,4\n", {"time": "t"}, "evenly spaced .*; resample it first"),
        (b"t,x\n0,1\n1,2\n2,3\n900,4\n", {"time": "t"}, "every 100th step at least"),
        (b"t,x\n-1e39,1\n1,2\n2,3\n3,4\n", {"time": "t"}, r"got 4 rows for 1e\+39; cut it"),
        (b"t,x\n-1e308,1\n1e308,2\n", {"time": "t"}, "evenly spaced times, got steps from inf"),
        (b"t,x\n0,1\ninf,2\n", {"time": "t"}, "got a time that is missing or infinite"),
        (b"t,x\nnoon,1\nnight,2\n", {"time": "t"}, "numbers in column 't', got 'noon'"),
    ],
)
def test_what_cannot_be_read_is_told(data, options, words):
    with pytest.raises(MediaError, match=words):
        decode(data, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"rate": 0}, {"rate": -1.0}, {"rate": 1.0, "windows": 0}, {"rate": 1.0, "seconds": 0}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(RecipeError, match="decoder 'series'"):
        build_decoder("series", **options)
