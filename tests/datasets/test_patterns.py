import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.datasets.patterns import fill, fill_path
from pathweave.errors import ManifestError


@pytest.mark.parametrize(
    ("pattern", "record", "expected"),
    [
        ("{id:012d}.jpg", {"id": 42}, "000000000042.jpg"),
        ("{id:012d}.jpg", {"id": "42"}, "000000000042.jpg"),
        ("{id}_{start:.1f}.wav", {"id": "-x", "start": "30"}, "-x_30.0.wav"),
        ("{a:stem}.png", {"a": "x/y.tar.jpg"}, "x/y.tar.png"),
        ("{a:last2}", {"a": "/far/away/b/c.flac"}, "b/c.flac"),
        ("{ids[1]}.npz", {"ids": ["a", "b"]}, "b.npz"),
    ],
)
def test_values_are_converted_as_the_format_needs(pattern, record, expected):
    assert fill((pattern,), record) == [expected]


def test_patterns_that_cannot_be_filled_are_passed_over():
    assert fill(("{a}", "{b}", "{c[3]}", "{a}{d}"), {"b": 1, "c": [1], "a": ""}) == ["1"]
    assert fill(("{a:d}.wav", "{b:stem}", "{a}.wav"), {"a": "x", "b": "."}) == ["x.wav"]


@pytest.mark.parametrize(
    ("pattern", "record", "message"),
    [
        ("{caption}", {"captoin": "x", "id": 3}, r"must have the field 'caption', got the fields"),
        ("{id}", {"id": None}, r"the field 'id' must hold a value, got None"),
        ("{id:d}", {"id": "abc"}, r"a number must stand here, got 'abc'"),
        ("{id:.1f}", {"id": [1]}, r"a number must stand here, got \[1\]"),
        ("{id:d}", {"id": "inf"}, r"a number must stand here, got 'inf'"),
        ("{id:stem}.png", {"id": "/"}, r"a path must name a file, got '/'"),
    ],
)
def test_what_is_wrong_is_told(pattern, record, message):
    with pytest.raises(ManifestError, match=message):
        fill((pattern,), record)


@pytest.mark.parametrize("path", ["../a.jpg", "x/../../a.jpg", "/etc/passwd", "a\0b", "."])
def test_a_path_that_leads_out_of_the_root_is_refused(path):
    with pytest.raises(ManifestError, match=r"the path of a medium must stay below the directory"):
        fill_path(("{path}",), {"path": path})


@given(st.text("./ab\\") | st.text(), st.sampled_from(["", ":stem", ":last2"]))
def test_a_path_stays_below_the_root_or_is_refused(text, form):
    try:
        (path,) = fill_path((f"media/{{path{form}}}",), {"path": text})
    except ManifestError:
        return
    assert path.startswith("media/")
    assert ".." not in path.split("/")
