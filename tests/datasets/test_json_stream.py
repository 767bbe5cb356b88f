import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.datasets import json_stream
from pathweave.datasets.json_stream import iterate_json
from pathweave.errors import ManifestError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=9,
)


def read(text, key=None):
    return list(iterate_json(io.StringIO(text), "a.json", key))


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40))
def test_a_list_is_read_whatever_the_size_of_the_pieces(records, indent, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_PIECE", piece)
        assert read(json.dumps(records, indent=indent)) == records
        tree = {"info": {"data": 1}, "passed": records, "data": records, "end": 12}
        text = json.dumps(tree, indent=indent)
        assert read(text, "data") == records
        assert read(text, "*") == records


@given(st.dictionaries(st.text(), st.dictionaries(st.text(max_size=3), st.integers())))
def test_an_object_of_records_gives_their_names(tree):
    expected = [{"sample_id": name, **record} for name, record in tree.items()]
    assert read(json.dumps(tree)) == expected


def test_what_is_no_object_is_put_under_data():
    assert read('{"a": "text", "b": [1, 2]}') == [
        {"sample_id": "a", "data": "text"},
        {"sample_id": "b", "data": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", None, r"a.json must hold an object or a list, got ''; download the file again"),
        ("12", None, r"a.json must hold an object or a list, got '12'"),
        ("[1]", "data", r"a.json must hold an object with the list 'data', got '\[1\]'"),
        ('{"images": [], "n": 1}', "data", r"must hold the list 'data', got the fields \['images'"),
        ('[{"a": 1}, {"a": 2', None, r"must be whole JSON, got .* after 1 records, before"),
        ('[{"a": 1} {"a": 2}]', None, r"must be whole JSON, got no '\]' after 1 records"),
        ('{"a": 1, 2}', None, r"must be whole JSON, got no name in an object"),
        ('{"a" 1}', None, r"must be whole JSON, got no ':'"),
        (
            '{"a": 1}\n{"a": 2}',
            None,
            r"got another object after the first; .* rename it to .js",
        ),
        ("[" + "1" * 5000 + "]", None, r"must be whole JSON, got a number of thousands of digits"),
        ("[1, 2] 3", None, r"must be whole JSON, got end of the file expected, found '3'"),
        ("[" * 100_000, None, r"must be whole JSON, got values nested too deep"),
    ],
)
def test_a_broken_file_is_named(text, key, message):
    with pytest.raises(ManifestError, match=message):
        read(text, key)


def test_records_before_the_break_are_read():
    records = iterate_json(io.StringIO('[{"a": 1}, {"a": 2}, {"a'), "a.json")
    assert [next(records), next(records)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(ManifestError, match="after 2 records"):
        next(records)


def test_memory_does_not_grow_with_the_file():
    file = _Endless()
    records = iterate_json(_Chained("[", file), "a.json")
    assert all(next(records) == {"a": 1} for _ in range(30_000))
    assert file.longest <= 1 << 17


@pytest.mark.parametrize(
    "broken", ['{"a" 1}', '{"a": 1,}', '{"a": "\n"}', '{"a": "\\x"}', "nil", "1 2"]
)
def test_what_is_no_json_is_told_without_reading_on(broken):
    file = _Endless()
    with pytest.raises(ManifestError, match=r"must be whole JSON, got .* after [12] records"):
        list(iterate_json(_Chained('[{"a": 1}, ' + broken + ", ", file), "a.json"))
    assert file.longest <= 1 << 17


class _Endless(io.TextIOBase):
    longest = 0

    def read(self, size=-1):
        self.longest = max(self.longest, size)
        return '{"a": 1},' * (size // 9 + 1)


class _Chained(io.TextIOBase):
    def __init__(self, start, rest):
        self._start, self._rest = start, rest

    def read(self, size=-1):
        start, self._start = self._start, ""
        return start or self._rest.read(size)
