import pickle
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pathweave.data import media_store
from pathweave.data.media_store import MediaStore, write_media_store
from pathweave.errors import ManifestError, MediaError


def rows(count: int, size: int = 100):
    rng = np.random.default_rng(0)
    for i in range(count):
        yield {"key": f"k{i}", "bytes": rng.bytes(size), "object": f"o{i // 2}"}


def test_every_row_is_found(tmp_path):
    expected = {row["key"]: row["bytes"] for row in rows(200)}
    write_media_store(tmp_path / "m.parquet", rows(200))
    store = MediaStore(tmp_path / "m.parquet")
    assert len(store) == 200
    assert {key: store.read(key) for key in expected} == expected
    assert pickle.loads(pickle.dumps(store)).read("k7") == expected["k7"]
    columns = pq.read_schema(tmp_path / "m.parquet").names
    assert columns == ["key", "bytes", "object", "source", "licence", "attribution"]


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(media_store, "_KEPT_BYTES", 50_000)
    write_media_store(tmp_path / "m.parquet", rows(500, size=1000))
    store = MediaStore(tmp_path / "m.parquet")
    for i in range(500):
        store.read(f"k{i}")
    assert sum(group.nbytes for group in store._kept.values()) < 150_000


def test_threads(tmp_path):
    expected = {row["key"]: row["bytes"] for row in rows(300)}
    write_media_store(tmp_path / "m.parquet", rows(300))
    store = MediaStore(tmp_path / "m.parquet")
    wrong = []

    def read_all():
        wrong.extend(key for key in expected if store.read(key) != expected[key])

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_large_row_groups_of_others(tmp_path):
    table = pa.table({"key": ["a", "b"], "bytes": [b"1", b"2"], "more": [1, 2]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert MediaStore(tmp_path / "m.parquet").read("b") == b"2"


def test_unknown_key(tmp_path):
    write_media_store(tmp_path / "m.parquet", rows(3))
    with pytest.raises(MediaError, match=r"must hold the key 'k9', got 3 others; correct"):
        MediaStore(tmp_path / "m.parquet").read("k9")


def test_missing_file(tmp_path):
    with pytest.raises(ManifestError, match=r"m\.parquet must exist, got no such file"):
        MediaStore(tmp_path / "m.parquet")


def test_missing_column(tmp_path):
    pq.write_table(pa.table({"key": ["a"], "data": [b"1"]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"columns bytes, key, got key, data; add bytes or"):
        MediaStore(tmp_path / "m.parquet")


def test_damaged_file(tmp_path):
    path = tmp_path / "m.parquet"
    write_media_store(path, rows(200, size=5_000))
    data = bytearray(path.read_bytes())
    place = data.index(next(rows(1, size=5_000))["bytes"])
    data[place - 40 : place + 10] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"whole Parquet file, got a damaged row group 0"):
        MediaStore(path).read("k0")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"key": "k0"}, r"must have a string 'key' and 'bytes', got \['key'\]"),
        ({"key": "k0", "bytes": b"again"}, "must be unique, got 'k0' twice"),
        (
            {"key": "k9", "bytes": b"", "colour": "red"},
            r"a field must be one of \[.*'key'.*\], got 'colour'",
        ),
    ],
)
def test_writing_broken_rows(tmp_path, row, reason):
    with pytest.raises(ManifestError, match=reason):
        write_media_store(tmp_path / "m.parquet", [*rows(3), row])
    assert list(tmp_path.iterdir()) == []
