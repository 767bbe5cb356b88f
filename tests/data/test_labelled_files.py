"""One long table is cut into recordings as a plain loop over its rows would cut it."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.labelled_files import find_labelled_files
from pathweave.errors import ManifestError

NAMES = st.sampled_from(["b", "a", "a ", "10", "9", "Z", "\u00e4"]) | st.integers(0, 12)
ROWS = st.lists(st.tuples(NAMES, st.integers(0, 1), st.integers()), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.booleans())
def test_a_long_table_is_cut_as_a_loop_over_its_rows_would_cut_it(rows, as_numbers):
    trips = [len(str(name)) if as_numbers else str(name) for name, _, _ in rows]
    moves = [("Going_Up", "going down")[move] for _, move, _ in rows]
    values = [number % 1000 for _, _, number in rows]
    expected, labels = {}, {}
    for trip, move, value in zip(trips, moves, values, strict=True):
        expected.setdefault(str(trip).strip(), []).append(value)
        labels.setdefault(str(trip).strip(), set()).add(move)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "log.parquet"
        pq.write_table(pa.table({"trip": trips, "x": values, "move": moves}), file)
        if any(len(found) > 1 for found in labels.values()):
            with pytest.raises(ManifestError, match="must be the same in all rows of a recording"):
                find_labelled_files(file, "move", None, "trip")
            return
        found = find_labelled_files(file, "move", "move", "trip").files
    assert [each.name for each in found] == sorted(expected)
    for each in found:
        (move,) = labels[each.name]
        assert (each.label, each.group) == (move.lower().replace("_", " "), move)
        table = pa_csv.read_csv(io.BytesIO(each.read()))
        assert table.to_pydict() == {"x": expected[each.name]}


@pytest.mark.parametrize(
    ("trips", "row"),
    [(["a", None, "b"], 2), (["a", " ", "b"], 2), ([1.5, 2.0, float("nan")], 3), ([None] * 3, 1)],
)
def test_the_row_of_an_empty_cell_is_told(tmp_path, trips, row):
    table = pa.table({"trip": trips, "x": [1, 2, 3], "move": ["up", "up", "down"]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(ManifestError, match=f"filled in every row, got an empty cell in row {row}"):
        find_labelled_files(tmp_path / "log.parquet", "move", None, "trip")
